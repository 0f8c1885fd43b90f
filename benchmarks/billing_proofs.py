"""All proofs of the bill at full length: kills, races, lost answers, power loss, liars, and the state machines.

Takes about forty minutes on two cores. `--only NAME` runs the proofs whose name contains it and keeps the figures of
the others, so that a run that was stopped can be continued. `--short` runs the same proofs with smaller counts, for
which ten minutes should be enough, and writes no result file.
"""

from __future__ import annotations

from proofs import proof_options, run_proofs


def main() -> None:
    """Run the proofs that the command line names."""
    chosen = proof_options("billing_proofs", __doc__).parse_args()
    run_proofs("billing_proofs", chosen.only, None if chosen.short else chosen.out)


if __name__ == "__main__":
    main()
