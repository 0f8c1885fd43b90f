"""All proofs of the vendor's service at full length: poison, overload, vanished clients, a lost model, a soak.

Wants a machine to itself: about twenty minutes on two cores, and the soak's thirty. `--only NAME` runs the proofs
whose name contains it and keeps the figures of the others, so that a run that was stopped can be continued. `--short`
runs the same proofs with smaller counts and the packaged tiny model, for which a few minutes are enough; speeds are
shown and not held against their goals, and no result file is written.
"""

from __future__ import annotations

from proofs import proof_options, run_proofs

_SOAK_MINUTES = 30.0


def main() -> None:
    """Run the proofs that the command line names."""
    options = proof_options("vendor_proofs", __doc__)
    options.add_argument("--minutes", type=float, help=f"length of the soak; {_SOAK_MINUTES:g} at full length")
    options.add_argument("--model", help="an open_clip architecture, a configuration file, or tiny-teacher")
    chosen = options.parse_args()
    sizes = {} if chosen.short else {"VL2V_PROOF_MINUTES": str(_SOAK_MINUTES)}
    if chosen.minutes is not None:
        sizes["VL2V_PROOF_MINUTES"] = str(chosen.minutes)
    if chosen.model is not None:
        sizes["VL2V_PROOF_MODEL"] = chosen.model
    run_proofs("vendor_proofs", chosen.only, None if chosen.short else chosen.out, sizes)


if __name__ == "__main__":
    main()
