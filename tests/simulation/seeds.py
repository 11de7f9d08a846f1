"""The seeds that every run of the tests simulates."""

from __future__ import annotations

FIRST = range(300)

# of seeds that once failed: what they had found; a seed stands for the same events only as long as
# neither the simulator nor the product draws differently, so each bug has a test of its own too
FAILED_ONCE = {
    2: "an orchestrator that was taken over went on answering",
    4: "a deadline that lost more updates than the quorum could spare ended every process",
    158: "a commit that was wrongly said to have failed left the journal ahead of its writer",
    231: "an orchestrator that was taken over with nothing to record kept its gateways",
    298: "a gateway whose ledger was away for a while never answered the plan",
    8591: "who met many faults in a round had spent its bytes for all further attempts at it",
    2869: "an update whose staged part a loss of power had torn was refused for good",
}
