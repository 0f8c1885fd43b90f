"""All proofs of the vendor's service at full length: poison, overload, vanished clients, a lost model, a soak.

Wants a machine to itself: about twenty minutes on two cores, and the soak's thirty. `--only NAME` runs the proofs
whose name contains it and keeps the figures of the others, so that a run that was stopped can be gone on with.
"""

from __future__ import annotations

from proofs import proof_options, run_proofs


def main() -> None:
    options = proof_options("vendor_proofs", __doc__)
    options.add_argument("--minutes", type=float, default=30.0, help="of the soak")
    options.add_argument("--model", help="an open_clip architecture, a configuration file, or tiny-teacher")
    chosen = options.parse_args()
    sizes = {"VL2V_PROOF_MINUTES": str(chosen.minutes)}
    if chosen.model is not None:
        sizes["VL2V_PROOF_MODEL"] = chosen.model
    run_proofs("vendor_proofs", chosen.only, chosen.out, sizes)


if __name__ == "__main__":
    main()
