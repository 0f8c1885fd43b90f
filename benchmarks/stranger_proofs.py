"""All proofs that strangers do no harm, at full length: crowds, a key of budget 0, lying vendors, hostile files.

Wants a machine to itself: about three quarters of an hour on two cores. `--only NAME` runs the proofs whose name
contains it and keeps the figures of the others, so that a run that was stopped can be continued. `--short` runs the
same proofs with smaller counts and the packaged tiny model; delays are shown and not held against their goals, and no
result file is written.
"""

from __future__ import annotations

from proofs import proof_options, run_proofs


def main() -> None:
    """Run the proofs that the command line names."""
    options = proof_options("stranger_proofs", __doc__)
    options.add_argument("--seconds", type=float, help="length of each attack; 20 at full length")
    options.add_argument("--model", help="an open_clip architecture, a configuration file, or tiny-teacher")
    chosen = options.parse_args()
    given = {"VL2V_PROOF_SECONDS": chosen.seconds, "VL2V_PROOF_MODEL": chosen.model}
    sizes = {name: str(value) for name, value in given.items() if value is not None}
    run_proofs("stranger_proofs", chosen.only, None if chosen.short else chosen.out, sizes)


if __name__ == "__main__":
    main()
