"""Bugs that have been made before, each with the change that plants it and the test that sees it.

A bug is a replacement in one module's source, made while it is imported in a process of its own.
Nothing in the product knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass

DP_SGD = "gateway/dp_sgd.py"
GATEWAY = "gateway/gateway.py"
LOCAL_ROUND = "gateway/local_round.py"
ONE_BACKWARD = "gateway/one_backward.py"
DATA_SETS = "gateway/data_sets.py"
SAMPLING = "gateway/sampling.py"
CHARGES = "gateway/charges.py"
CLIPPED = "private_step/clipped.py"
EMBEDDING = "private_step/layers/embedding.py"
RECURRENT = "private_step/layers/recurrent.py"
GRAMS = "private_step/grams.py"
TAPE = "private_step/tape.py"
NOISE = "private_step/noise.py"
BOOKINGS = "gateway/bookings.py"
RECORDS = "gateway/records.py"
SPENDING = "gateway/spending.py"
COUNTERSIGNATURES = "gateway/countersignatures.py"
LEDGER_HEADS = "orchestrator/ledger_heads.py"
AGENT = "gateway/agent.py"
OUTGOING = "gateway/outgoing.py"
RUNNING_VALUES = "orchestrator/running_values.py"

UNIT = "tests/unit/gateway"
EGRESS = f"{UNIT}/test_egress.py"
ROUND = "tests/service/gateway/test_fed_round.py"
ADAPTIVE_STEP = f"{UNIT}/test_adaptive_step.py"
ADAPTIVE_ROUNDS = "tests/service/gateway/test_adaptive_rounds.py"
STEP = "tests/unit/private_step/test_clipped.py"
UNITS = "tests/service/gateway/test_unit_sensitivity.py"
NETWORKS = (
    "tests/service/private_step/test_architectures.py"
    "::test_the_sum_of_a_random_network_is_the_naive_one"
)


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
        sound="noised_mean(total, noise_multiplier * clipping_norm, divisor, generator, out=place)",
        faulty="noised_mean(total, noise_multiplier, divisor, generator, out=place)",
        caught_by=f"{UNIT}/test_dp_sgd.py::test_noise_has_the_stated_width",
    ),
    Bug(
        name="noise on the mean",
        path=LOCAL_ROUND,
        sound="            noise_multiplier=how.noise_multiplier,\n",
        faulty="            noise_multiplier=how.noise_multiplier * run.expected_batch_size,\n",
        caught_by=f"{ROUND}::test_the_noise_is_on_the_sum_not_on_the_mean",
    ),
    Bug(
        name="a count that is not paid for",
        path=DP_SGD,
        sound="sum_noise_multiplier(noise_multiplier, count_noise=count_noise)",
        faulty="noise_multiplier",
        caught_by=f"{ADAPTIVE_STEP}::test_the_sum_is_noised_by_what_the_count_leaves_of_the_budget",
    ),
    Bug(
        name="sum and count under one noise",
        path=DP_SGD,
        sound="noised_mean(count, count_noise, divisor, generator)",
        faulty="count_noise / divisor * (mean[:1] / (of_sum * clipping_norm / divisor))",
        caught_by=f"{ADAPTIVE_STEP}"
        "::test_the_counts_noise_is_normal_of_the_stated_width_and_apart_from_the_sums",
    ),
    Bug(
        name="a unit that is not finite counted within",
        path=DP_SGD,
        sound="nan_to_num(nan=-0.5)",
        faulty="nan_to_num(nan=0.5)",
        caught_by=f"{ADAPTIVE_STEP}"
        "::test_a_gradient_that_is_not_finite_lies_outside_and_adds_nothing",
    ),
    Bug(
        name="a round repeated at another clipping norm",
        path=BOOKINGS,
        sound="ChargedRound(charge, row.secret, row.clipping_norm, row.update_digest",
        faulty="ChargedRound("
        "charge, row.secret, charge.terms.effective.clipping_norm, row.update_digest",
        caught_by=f"{ADAPTIVE_ROUNDS}"
        "::test_killed_in_any_round_it_gives_the_same_bytes_and_the_same_norms",
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
        sound="BegunRun(terms, plan.rounds.count, declared * rate, sampler, units, form)",
        faulty="BegunRun(terms, plan.rounds.count, len(units) * rate, sampler, units, form)",
        caught_by=f"{ROUND}::test_a_round_is_the_clipped_sum_over_declared_units_times_rate",
    ),
    Bug(
        name="empty batch skipped",
        path=LOCAL_ROUND,
        sound="        units = run.draw(sampling)\n",
        faulty="        units = run.draw(sampling)\n        if not units:\n            continue\n",
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
        path=LOCAL_ROUND,
        sound="            generator=noise,\n",
        faulty="            generator=charged.noise,\n",
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
        path=BOOKINGS,
        sound="        raise Equivocation("
        "run, number, charged=row.parent, offered=charge.parent)\n",
        faulty="        pass\n",
        caught_by="tests/service/gateway/test_ledger_on_disk.py"
        "::test_a_second_parent_for_a_charged_round_is_refused_and_recorded",
    ),
    Bug(
        name="joint norm without one layer",
        path=TAPE,
        sound="        self.squared += squared\n",
        faulty="        self.squared += squared if self._booked else 0.0\n",
        caught_by=NETWORKS,
    ),
    Bug(
        name="embedding norm without repeated ids",
        path=EMBEDDING,
        sound="    of_group = summed.square().sum(dim=1)\n",
        faulty="    apart = gradient.flatten(0, -2).square().sum(dim=1)\n"
        "    of_group = apart.new_zeros(len(found)).index_add_(0, group, apart)\n",
        caught_by=f"{STEP}::test_a_repeated_id_counts_with_all_its_places",
    ),
    Bug(
        name="LSTM norm without the recurrent bias",
        path=RECURRENT,
        sound="ones=len(biases))",
        faulty="ones=min(1, len(biases)))",
        caught_by=NETWORKS,
    ),
    Bug(
        name="factor above 1",
        path=CLIPPED,
        sound=".clamp_(max=1.0)",
        faulty="",
        caught_by=NETWORKS,
    ),
    Bug(
        name="reweighting of a detached loss",
        path=CLIPPED,
        sound="        losses.sum().backward()",
        faulty="        losses.detach().requires_grad_().sum().backward()",
        caught_by=NETWORKS,
    ),
    Bug(
        name="Gram norm without slack for cancellation",
        path=GRAMS,
        sound="(terms + 2 * positions + 32) * UNIT_ROUNDOFF",
        faulty="0.0",
        caught_by=f"{STEP}::test_units_built_for_cancellation_add_no_more_than_the_clipping_norm",
    ),
    Bug(
        name="records of a document clipped one by one",
        path=ONE_BACKWARD,
        sound="gradients.add(self._batch(some.rows), clipping_norm, of_unit)",
        faulty="gradients.add(self._batch(some.rows), clipping_norm)",
        caught_by=f"{UNITS}::test_removing_any_unit_moves_the_sum_by_at_most_the_clipping_norm",
    ),
    Bug(
        name="pieces of a large document clipped one by one",
        path=ONE_BACKWARD,
        sound="                norms = gradients.add_large("
        "map(self._batch, some.pieces()), clipping_norm)\n",
        faulty="                for piece in some.pieces():\n"
        "                    norms = gradients.add_large([self._batch(piece)], clipping_norm)\n",
        caught_by=f"{UNITS}::test_removing_any_unit_moves_the_sum_by_at_most_the_clipping_norm",
    ),
    Bug(
        name="sampling of sentences called sampling of documents",
        path=LOCAL_ROUND,
        sound="        return [self.units[place] for place in self.sampler.draw(stream)]\n",
        faulty="        rows = PoissonSampler(self.sampler._rate, sum(map(len, self.units)))\n"
        "        drawn = set(rows.draw(stream).tolist())\n"
        "        return [unit for unit in self.units if not drawn.isdisjoint(unit)]\n",
        caught_by=f"{UNIT}/test_unit_sampling.py"
        "::test_every_document_is_drawn_at_the_rate_whatever_its_size",
    ),
    Bug(
        name="two units on one account",
        path=BOOKINGS,
        sound="if others := units_charged(connection, terms.data.name) - {terms.unit}:",
        faulty="if others := set[Unit]():",
        caught_by=f"{ROUND}"
        "::test_data_that_were_charged_under_one_unit_are_not_charged_under_another",
    ),
    Bug(
        name="one noise key for two groupings",
        path=DATA_SETS,
        sound="    if unit is Unit.EXAMPLE:\n",
        faulty="    if unit in Unit:\n",
        caught_by=f"{ROUND}::test_the_same_rows_in_other_documents_have_other_keys",
    ),
    Bug(
        name="one hundredth too little noise",
        path=NOISE,
        sound="mul_(-2 / GRID**2)",
        faulty="mul_(-2 * 0.99**2 / GRID**2)",
        caught_by="tests/service/private_step/test_noise.py"
        "::test_ten_million_draws_follow_the_normal_law",
    ),
    Bug(
        name="an old ledger that goes on",
        path=COUNTERSIGNATURES,
        sound="newest_place is not None and not ledger_chain.has(connection, newest_place)",
        faulty="newest_place is not None and newest_place.sequence < 0",
        caught_by="tests/service/gateway/test_ledger_chain.py"
        "::test_a_ledger_that_lacks_what_was_countersigned_spends_nothing_more",
    ),
    Bug(
        name="a head that goes down",
        path=LEDGER_HEADS,
        sound="kept is not None and kept != head and head.sequence <= kept.sequence",
        faulty="kept is None and head.sequence < 0",
        caught_by="tests/service/orchestrator/test_ledger_heads.py::test_a_head_may_only_go_up",
    ),
    Bug(
        name="a chain that is not followed",
        path=RECORDS,
        sound="    if record.previous != head.hash:\n",
        faulty="    if not record.previous:\n",
        caught_by=f"{UNIT}/test_records.py"
        "::test_a_record_written_anew_with_its_hash_is_found_at_the_next",
    ),
    Bug(
        name="a merge that forgets the other branch",
        path=SPENDING,
        sound="for r in everything if r.kind == Kind.CHARGE",
        faulty="for r in chain if r.kind == Kind.CHARGE",
        caught_by=f"{UNIT}/test_spending.py::test_a_charge_in_two_images_is_spent_once",
    ),
    Bug(
        name="an exception's text in a decline",
        path=AGENT,
        sound="Refusal(reason_of(error))",
        faulty="Refusal(reason_of(error), str(error))",
        caught_by="tests/service/gateway/test_agent.py"
        "::test_a_round_that_fails_is_declined_without_a_word_of_why",
    ),
    Bug(
        name="a reason that an error of someone else's has",
        path=AGENT,
        sound="    return reason if isinstance(reason, RefusalReason) else RefusalReason.FAILED\n",
        faulty='    return getattr(error, "reason", RefusalReason.FAILED)\n',
        caught_by="tests/service/gateway/test_agent.py"
        "::test_a_round_that_fails_is_declined_without_a_word_of_why",
    ),
    Bug(
        name="rounding by the noise's stream",
        path=CHARGES,
        sound='        return self._stream("rounding")\n',
        faulty='        return self._stream("noise")\n',
        caught_by=f"{ROUND}"
        "::test_the_stream_that_rounds_is_not_that_of_the_noise_or_of_the_batches",
    ),
    Bug(
        name="rounding drawn anew for one update",
        path=CHARGES,
        sound='        return self._stream("rounding")\n',
        faulty='        return RandomStream(__import__("os").urandom(32))\n',
        caught_by=f"{ROUND}"
        "::test_the_stream_that_rounds_is_not_that_of_the_noise_or_of_the_batches",
    ),
    Bug(
        name="int8 scales of any size",
        path=RUNNING_VALUES,
        sound="    return scales < np.float32(LIMIT / STEPS)\n",
        faulty="    return np.isfinite(scales)\n",
        caught_by="tests/unit/orchestrator/test_running_values.py"
        "::test_what_cannot_be_added_is_seen_and_named",
    ),
    Bug(
        name="a field that is not in the manifest is sent",
        path=OUTGOING,
        sound='        raise NotInManifest(path, "is not in the egress manifest")\n',
        faulty="        return\n",
        caught_by=f"{EGRESS}::test_without_its_entry_a_field_does_not_leave",
    ),
    Bug(
        name="a field that holds what it likes",
        path=OUTGOING,
        sound="    if not entry.rule.admits(",
        faulty="    if entry.rule is None and not entry.rule.admits(",
        caught_by=f"{EGRESS}::test_what_does_not_fit_its_field_is_refused_and_not_repeated",
    ),
    Bug(
        name="a field beyond the contract is sent",
        path=OUTGOING,
        sound="    if len(UnknownFieldSet(message)):\n",
        faulty="    if len(UnknownFieldSet(message)) > 1:\n",
        caught_by=f"{EGRESS}::test_a_field_that_the_contract_does_not_know_is_refused_at_any_depth",
    ),
    Bug(
        name="a chunk of which the manifest is not asked",
        path=OUTGOING,
        sound="            _check_entry(value, path, self._manifest)\n",
        faulty="            del path, value\n",
        caught_by="tests/service/gateway/test_client.py"
        "::test_what_breaks_a_stream_off_comes_out_of_the_call",
    ),
)
