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
AUTH = "orchestrator/auth.py"
FOUR_EYES = "orchestrator/four_eyes.py"
PROVIDER_KEYS = "orchestrator/provider_keys.py"
TOKENS = "orchestrator/tokens.py"
ENROLMENTS = "orchestrator/enrolments.py"
CALLERS = "orchestrator/callers.py"
ENROLMENT = "tests/service/orchestrator/test_enrolment.py"
REVOCATION = "tests/service/orchestrator/test_revocation.py"
QUOTAS = "orchestrator/quotas.py"
BUDGETS = "orchestrator/budgets.py"
LIMITS = "tests/unit/orchestrator/test_quotas.py"
TRUST = "gateway/trust.py"
PLAN_SIGNATURE = "common/plan_signature.py"
WORKSHOP = "gateway/workshop.py"
ACCEPTANCES = "orchestrator/acceptances.py"
SIGNED_PLANS = "tests/service/orchestrator/test_signed_plans.py"
ADMISSION = "orchestrator/admission.py"
RUNNING_NORM = "orchestrator/running_norm.py"
STEPS = "orchestrator/steps.py"
SUBMISSIONS = "orchestrator/submissions.py"
UPLOADS = "orchestrator/uploads.py"
GUARDS = "tests/service/orchestrator/test_guards.py"
BACKUP = "orchestrator/backup.py"
BACKUPS = "tests/service/orchestrator/test_backup.py"


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
        sound="            expected_batch_size=declared * rate,\n",
        faulty="            expected_batch_size=len(units) * rate,\n",
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
        sound="    if not ledger_chain.has(connection, place):\n",
        faulty="    if place.sequence < 0:\n",
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
    Bug(
        name="a method without an entry is everybody's",
        path=AUTH,
        sound="    if caller.role not in PERMISSIONS.get(method, frozenset()):\n",
        faulty="    if caller.role not in PERMISSIONS.get(method, frozenset({caller.role})):\n",
        caught_by="tests/unit/orchestrator/test_refusals.py"
        "::test_a_method_without_an_entry_is_refused",
    ),
    Bug(
        name="a token gives a machine's role",
        path=AUTH,
        sound="    allowed = person.roles & PERMISSIONS.get(method, frozenset()) & PEOPLE\n",
        faulty="    allowed = person.roles & PERMISSIONS.get(method, frozenset())\n",
        caught_by="tests/unit/orchestrator/test_refusals.py"
        "::test_no_token_gives_a_machines_role_whatever_it_says",
    ),
    Bug(
        name="one person is two",
        path=FOUR_EYES,
        sound="        case Asked(asked_by=first, confirmed_by=None) if first != name:\n",
        faulty="        case Asked(asked_by=first, confirmed_by=None) if first:\n",
        caught_by="tests/unit/orchestrator/test_four_eyes.py"
        "::test_one_person_is_never_two_and_gets_no_more_time_by_asking_again",
    ),
    Bug(
        name="a key's own word for its algorithm is not compared",
        path=PROVIDER_KEYS,
        sound='    as_expected = published.get("alg", algorithm) == algorithm\n',
        faulty="    as_expected = True\n",
        caught_by="tests/unit/orchestrator/test_provider_keys.py::test_no_other_key_signs",
    ),
    Bug(
        name="a token for anybody",
        path=TOKENS,
        sound='                    "require": _REQUIRED,\n',
        faulty='                    "require": _REQUIRED, "verify_aud": False,\n',
        caught_by="tests/service/orchestrator/test_sign_in.py"
        "::test_a_token_that_says_something_else_is_refused_and_why_is_told",
    ),
    Bug(
        "a token is worth a certificate twice",
        ENROLMENTS,
        "        if row.used_for not in {None, key_digest(request.key)}:",
        "        if False:",
        f"{ENROLMENT}::test_of_fifty_uses_of_a_token_at_once_one_succeeds",
    ),
    Bug(
        "a token is worth a certificate in any name",
        ENROLMENTS,
        "    if request.identity != need:",
        "    if False:",
        f"{ENROLMENT}::test_a_token_is_for_the_member_it_was_made_for",
    ),
    Bug(
        "an open stream outlives its caller's revocation",
        CALLERS,
        "                call.end(refusal)",
        "                pass",
        f"{REVOCATION}::test_an_open_stream_of_a_revoked_member_ends_at_once",
    ),
    Bug(
        "a weak key is as good as a strong one",
        "common/certificates.py",
        "        if LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS and exponent == RSA_EXPONENT:",
        "        if key.key_size <= MOST_RSA_BITS and exponent == RSA_EXPONENT:",
        "tests/unit/common/test_enrolment.py::test_a_request_for_a_weak_key_is_refused",
    ),
    Bug(
        "of two files the certificate is swapped first, and a crash leaves none that fits",
        "common/key_files.py",
        "        for path in (key, certificate):",
        "        for path in (certificate, key):",
        "tests/service/test_renewal.py"
        "::test_a_crash_while_files_are_swapped_leaves_a_pair_that_fits",
    ),
    Bug(
        name="a rate that nobody keeps",
        path=QUOTAS,
        sound="        if wait_s:\n",
        faulty="        if wait_s < 0:\n",
        caught_by=f"{LIMITS}::test_a_request_beyond_the_rate_is_told_how_long_to_wait",
    ),
    Bug(
        name="a call that keeps its place after its end",
        path=QUOTAS,
        sound="            use.uploads -= brings_body\n",
        faulty="            use.uploads -= 0\n",
        caught_by=f"{LIMITS}::test_a_call_that_failed_gives_its_place_back",
    ),
    Bug(
        name="memory that is lent and never given back",
        path=BUDGETS,
        sound="        finally:\n            self.taken -= need\n",
        faulty="        finally:\n",
        caught_by=f"{LIMITS}::test_memory_is_lent_up_to_the_limit_and_given_back",
    ),
    Bug(
        name="a disk that is filled to the last byte",
        path=BUDGETS,
        sound="        if free - need < self._reserve:\n",
        faulty="        if free - need < 0:\n",
        caught_by=f"{LIMITS}"
        "::test_a_body_that_leaves_the_reserve_is_taken_and_one_byte_more_is_not",
    ),
    Bug(
        name="a plan that is known by the digest that comes with it",
        path=TRUST,
        sound="        check(signature, self.federation, run, plan_id(config.plan))\n",
        faulty="        check(signature, self.federation, run, config.plan_digest)\n",
        caught_by=f"{UNIT}/test_trust.py::test_anything_else_is_refused_by_name",
    ),
    Bug(
        name="a plan that is good for every run",
        path=PLAN_SIGNATURE,
        sound="    if signature.run_id != run_id:\n",
        faulty="    if not run_id:\n",
        caught_by="tests/unit/common/test_plan_signature.py::test_a_plan_of_another_run_is_named",
    ),
    Bug(
        name="a plan whose signer is not asked for",
        path=AGENT,
        sound="            signer = self._trust.signer(run, config)\n",
        faulty='            signer = ""\n',
        caught_by=f"{SIGNED_PLANS}"
        "::test_what_the_operator_did_not_order_reads_no_data_and_charges_nothing",
    ),
    Bug(
        name="a run with two plans",
        path=WORKSHOP,
        sound="        if known is None or known.plan == digest:\n",
        faulty="        if known is None or known.plan:\n",
        caught_by=f"{SIGNED_PLANS}"
        "::test_a_second_plan_for_a_run_is_refused_even_if_the_operator_has_signed_both",
    ),
    Bug(
        name="an acceptance that anybody may have signed",
        path=ACCEPTANCES,
        sound="    check(signed, acceptance)\n",
        faulty="    del check\n",
        caught_by=f"{SIGNED_PLANS}"
        "::test_what_is_not_signed_by_the_caller_for_these_very_values_is_not_recorded",
    ),
    Bug(
        name="a record's place is not looked at",
        path="common/audit.py",
        sound="    if record.sequence != following.sequence:\n",
        faulty="    if record.sequence < 0:\n",
        caught_by="tests/unit/common/test_audit.py"
        "::test_a_record_chained_under_a_wrong_number_is_found",
    ),
    Bug(
        name="a checkpoint that nobody signed",
        path="gateway/audit_heads.py",
        sound="    if not checkpoint.is_genuine():\n",
        faulty="    if not checkpoint.signature:\n",
        caught_by="tests/service/gateway/test_audit_heads.py"
        "::test_another_story_is_refused_and_kept_as_its_own_proof",
    ),
    Bug(
        name="a fork is gone on from",
        path="gateway/audit_heads.py",
        sound="    if place != now:\n",
        faulty="    if place.sequence != now.sequence:\n",
        caught_by="tests/service/gateway/test_audit_heads.py"
        "::test_another_story_is_refused_and_kept_as_its_own_proof",
    ),
    Bug(
        name="a record beside the event's transaction",
        path="orchestrator/journal.py",
        sound="(insert(EVENTS), rows)\n            also(connection)\n",
        faulty="(insert(EVENTS), rows)\n",
        caught_by="tests/service/orchestrator/test_record.py"
        "::test_no_event_is_there_without_its_record",
    ),
    Bug(
        name="an update that is added unchecked",
        path=UPLOADS,
        sound="        self.norm = self._check.finish(self._read)\n",
        faulty="        self.norm = 0.0\n",
        caught_by="tests/poison/test_validation.py::test_the_corpus_of_found_cases_is_refused",
    ),
    Bug(
        name="norms that nobody clips",
        path=SUBMISSIONS,
        sound="factor(norm, state.norm_bound)",
        faulty="1.0",
        caught_by=f"{GUARDS}::test_what_is_above_the_bound_is_scaled_down_to_it",
    ),
    Bug(
        name="a bound that moves while its round is open",
        path=SUBMISSIONS,
        sound="factor(norm, state.norm_bound)",
        faulty="factor(norm, 3 * min([norm, *state.norms.values()]))",
        caught_by=f"{GUARDS}::test_killed_in_any_place_of_a_round_the_weights_are_the_same",
    ),
    Bug(
        name="an update from quarantine counted",
        path=STEPS,
        sound="        quarantined=also,\n",
        faulty="        quarantined=(),\n",
        caught_by=f"{GUARDS}::test_from_quarantine_an_update_is_received_checked_and_not_counted",
    ),
    Bug(
        name="another gateway's bytes counted again",
        path=ADMISSION,
        sound="    if state.holder_of(digest) not in {None, gateway}:\n",
        faulty="    if state.holder_of(digest) not in {None, *state.invited}:\n",
        caught_by="tests/service/orchestrator/test_bad_updates.py"
        "::test_of_two_gateways_with_the_same_bytes_the_first_is_counted",
    ),
    Bug(
        name="a norm that depends on the pieces",
        path=RUNNING_NORM,
        sound="        self._keep(rest)\n",
        faulty="        self._keep(rest[:0])\n",
        caught_by="tests/unit/orchestrator/test_running_norm.py"
        "::test_any_pieces_give_the_same_bits",
    ),
    Bug(
        name="damaged weights restored from a backup",
        path=BACKUP,
        sound="    if digest != source.name:\n",
        faulty="    if len(digest) != len(source.name):\n",
        caught_by=f"{BACKUPS}"
        "::test_weights_that_were_damaged_in_a_backup_are_named_and_start_nothing",
    ),
    Bug(
        name="a backup restored under the write-ahead log of another journal",
        path=BACKUP,
        sound='BESIDE = ("", "-wal", "-shm")',
        faulty='BESIDE = ("",)',
        caught_by=f"{BACKUPS}::test_what_is_there_is_not_overwritten",
    ),
    Bug(
        name="a damaged journal restored from a backup",
        path=BACKUP,
        sound="digest is not None and _digest(folder / name) != digest:",
        faulty="digest is not None and not _digest(folder / name):",
        caught_by=f"{BACKUPS}::test_a_backup_that_is_not_whole_is_refused_and_starts_nothing",
    ),
    Bug(
        name="a password that loses its spaces",
        path="orchestrator/engines.py",
        sound='.rstrip("\\r\\n")',
        faulty=".strip()",
        caught_by="tests/service/orchestrator/test_engines.py"
        "::test_every_character_of_a_password_in_a_file_is_part_of_it",
    ),
)
