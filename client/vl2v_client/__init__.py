"""The client: buys few CLIP embeddings, audits the bill, distils them into a small student."""
