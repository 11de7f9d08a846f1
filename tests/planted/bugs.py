"""Bugs that have been made before, each with the change that plants it and the test that sees it.

A bug is a replacement in one module's source, made while it is imported in a process of its own.
Nothing in the product knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass

DP_SGD = "gateway/dp_sgd.py"
GATEWAY = "gateway/gateway.py"
SAMPLING = "gateway/sampling.py"
CHARGES = "gateway/charges.py"
LEDGER = "gateway/ledger.py"

UNIT = "tests/unit/gateway"
ROUND = "tests/service/gateway/test_fed_round.py"


@dataclass(frozen=True)
class Bug:
    """A replacement of `sound` by `faulty` in `path`, and the test that must notice."""

    name: str
    path: str  # of the module's source, from the root of the repository
    sound: str  # stands there exactly once
    faulty: str
    caught_by: str  # a test's node id

    @property
    def module(self) -> str:
        """The faulty module's name."""
        return self.path.removesuffix(".py").replace("/", ".")


BUGS = (
    Bug(
        name="clipping of the batch mean",
        path=DP_SGD,
        sound="    norms = torch.linalg.vector_norm(rows, dim=1)\n",
        faulty="    norms = torch.linalg.vector_norm(rows.mean(dim=0)).expand(len(rows))\n",
        caught_by="tests/service/gateway/test_sensitivity.py"
        "::test_removing_any_example_moves_the_sum_by_at_most_the_clipping_norm",
    ),
    Bug(
        name="noise without the factor C",
        path=DP_SGD,
        sound="    deviation = noise_multiplier * clipping_norm\n",
        faulty="    deviation = noise_multiplier\n",
        caught_by=f"{UNIT}/test_dp_sgd.py::test_noise_has_the_stated_width",
    ),
    Bug(
        name="noise on the mean",
        path=GATEWAY,
        sound="                noise_multiplier=how.noise_multiplier,\n",
        faulty="                noise_multiplier=how.noise_multiplier * run.expected_batch_size,\n",
        caught_by=f"{ROUND}::test_the_noise_is_on_the_sum_not_on_the_mean",
    ),
    Bug(
        name="fixed batches called Poisson",
        path=SAMPLING,
        sound="np.flatnonzero(stream.uniforms(self._population_size) <= self._rate)",
        faulty="np.argsort(stream.uniforms(self._population_size))"
        "[: round(self._population_size * self._rate)]",
        caught_by=f"{UNIT}/test_sampling.py::test_batch_sizes_are_binomial",
    ),
    Bug(
        name="divisor from the row count",
        path=GATEWAY,
        sound="_Run(terms, plan.rounds.count, units * rate, sampler)",
        faulty="_Run(terms, plan.rounds.count, len(self._site.dataset) * rate, sampler)",
        caught_by=f"{ROUND}::test_a_round_is_the_clipped_sum_over_declared_units_times_rate",
    ),
    Bug(
        name="empty batch skipped",
        path=GATEWAY,
        sound="            rows = run.sampler.draw(sampling)\n",
        faulty="            rows = run.sampler.draw(sampling)\n"
        "            if not len(rows):\n"
        "                continue\n",
        caught_by=f"{ROUND}::test_an_empty_batch_is_noised_and_counted",
    ),
    Bug(
        name="NaN example dropped instead of zeroed",
        path=DP_SGD,
        sound="    rows[~norms.isfinite()] = 0.0\n",
        faulty="    rows, norms = rows[norms.isfinite()], norms[norms.isfinite()]\n",
        caught_by=f"{UNIT}/test_dp_sgd.py"
        "::test_a_row_that_is_not_finite_becomes_zero_and_stays_in_its_place",
    ),
    Bug(
        name="noise seed used twice",
        path=GATEWAY,
        sound="                generator=noise,\n",
        faulty="                generator=charged.noise,\n",
        caught_by=f"{ROUND}::test_every_step_has_noise_of_its_own",
    ),
    Bug(
        name="charge after reading",
        path=GATEWAY,
        sound="        charged = self._charge(run, train)\n",
        faulty="        self._site.dataset.batch([0])\n"
        "        charged = self._charge(run, train)\n",
        caught_by=f"{ROUND}::test_the_charge_is_on_the_disk_before_the_first_example_is_read",
    ),
    Bug(
        name="one noise key for two parents",
        path=CHARGES,
        sound='            "parent": self.parent,\n',
        faulty="",
        caught_by="tests/service/gateway/test_ledger_on_disk.py"
        "::test_keys_differ_over_everything_that_a_round_is_bound_to",
    ),
    Bug(
        name="a second parent for a charged round",
        path=LEDGER,
        sound="        raise Equivocation("
        "run, number, charged=row.parent, offered=charge.parent)\n",
        faulty="        pass\n",
        caught_by="tests/service/gateway/test_ledger_on_disk.py"
        "::test_a_second_parent_for_a_charged_round_is_refused_and_recorded",
    ),
)
