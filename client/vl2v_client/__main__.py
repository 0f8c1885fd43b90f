"""`python -m vl2v_client` is `vl2v-client`."""

from vl2v_client.cli import main

main()
