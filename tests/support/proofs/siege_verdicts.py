"""What is held of an attack, and of a vendor after all of them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import Size
from support.proofs.siege import Siege

MOST_BATCHES = 2.0
MOST_WAIT_SECONDS = 10.0
"""On any machine, however short the proof: what these attacks did before they were stopped took longer."""
MOST_LOG_BYTES_PER_MINUTE = 1_000_000
MOST_GROWTH_PERCENT = 10.0


@dataclass(frozen=True)
class Judge:
    """Holds attacks against their bounds. `prove_speed` takes what only a quiet machine can show."""

    prove: Prove
    prove_speed: Prove
    size: Size

    def withstands(self, siege: Siege, name: str, allowed: Set[str]) -> None:
        """Attack, and hold what came of it against the bounds.

        Args:
            allowed: how the attacker's acts may end.
        """
        seconds, count = self.size("SECONDS", 3, 20), int(self.size("CONNECTIONS", 1100, 1100))
        attack = siege.attack(name, seconds=seconds, count=count)
        told = f"{name}: "
        before, during, after = (watch.p99_seconds for watch in attack.watches)
        batch = siege.batch_seconds
        for when, found in (("during", during), ("after", after)):
            batches = round((found - before) / batch, 2)
            figure = f"{told}the other customer's p99 {when}, beyond {1000 * before:.0f} ms, in batches of"
            goal = f"<= {MOST_BATCHES:g}"
            self.prove_speed(f"{figure} {1000 * batch:.0f} ms", batches, goal=goal, met=batches <= MOST_BATCHES)
        longest = round(max(during, after), 2)
        goal = f"<= {MOST_WAIT_SECONDS:g}"
        self.prove(f"{told}the other customer's p99, s", longest, goal=goal, met=longest <= MOST_WAIT_SECONDS)
        others, asked = (sum(getattr(w, n) for w in attack.watches) for n in ("others", "asked"))
        self.prove(f"{told}its requests not served, of {asked}", others, goal="0", met=others == 0)
        ends = {end: number for end, number in attack.seen.items() if number}
        strange = {end: number for end, number in ends.items() if end not in {*allowed, "held"}}
        self.prove(f"{told}ends of {ends} that may not be", str(strange), goal="{}", met=not strange and bool(ends))
        growth = int(attack.log_bytes_per_minute)
        goal = f"< {MOST_LOG_BYTES_PER_MINUTE}"
        self.prove(f"{told}log, bytes a minute", growth, goal=goal, met=growth < MOST_LOG_BYTES_PER_MINUTE)

    def is_unharmed(self, siege: Siege) -> None:
        """Hold memory, bill, log and ledger against what they were before all attacks."""
        resident = siege.settle(int(siege.resident_bytes * (1 + MOST_GROWTH_PERCENT / 100)))
        growth = round(100 * (resident / siege.resident_bytes - 1), 1)
        name = f"memory after all, beyond {siege.resident_bytes / 2**20:.0f} MiB, percent"
        self.prove(name, growth, goal=f"<= {MOST_GROWTH_PERCENT:g}", met=growth <= MOST_GROWTH_PERCENT)
        excess = siege.customer.used_units() - siege.bought_units
        name = f"units billed beyond the {siege.bought_units} that were delivered"
        self.prove(name, excess, goal="0", met=excess == 0)
        stolen = siege.attacker.used_units()
        self.prove("units billed to the attacker", stolen, goal="0", met=stolen == 0)
        sound = siege.audit_is_clean() and siege.vendor.verify_ledger()
        self.prove("the customer's audit and `ledger verify` find nothing", str(sound), goal="True", met=sound)
        logs = siege.vendor.log.read_text() + siege.attacker_log.read_text()
        traces = logs.count("Traceback")
        self.prove("tracebacks in the vendor's log and the attackers'", traces, goal="0", met=traces == 0)
        ready = siege.vendor.is_ready()
        self.prove("ready", str(ready), goal="True", met=ready)
