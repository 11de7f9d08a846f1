from __future__ import annotations

import math
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from common.accounting import PrivacyEvent, epsilon_pld
from common.hyperparameters import Bounds, Hyperparameters, Overrides, Range
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Unit
from common.protocol import RefusalReason
from common.randomness import InsecureSeed
from common.weights import Layout, MalformedWeights, NotFinite, Weights
from common.wire_formats import WireFormat
from gateway.charges import (
    BudgetExhausted,
    ChargedRound,
    Equivocation,
    LedgerUnreadable,
    RoundCharge,
    RoundNotPlanned,
    RoundReleased,
    RunNotBegun,
    UnitChanged,
    UpdateNotRepeatable,
)
from gateway.choices import GradientsBy
from gateway.gateway import DeliveredWeights, ForeignWeights, Gateway, Site, SiteRules, TrainRound
from gateway.ledger import Ledger, epsilon_of
from gateway.policy import Accepted, Policy, Refused
from gateway.training import flat_parameters
from gateway.updates import UpdateStore
from tasks.parameters import NothingToTrain, layout_of
from tests.unit.gateway.toys import (
    CLINIC,
    HOW,
    LABELS,
    PLAN,
    RUN,
    Examples,
    Toy,
    loss,
    model,
    plan,
    values,
)

GENEROUS = Policy(epsilon_budget=1e30)
ROUNDED = ("bfloat16", "int8")
ONE_STEP = HOW.model_copy(update={"local_steps": 1, "learning_rate": 1.0, "sampling_rate": 1.0})
NOISE_ONLY = ONE_STEP.model_copy(update={"sampling_rate": 1e-9})  # every batch is empty


class Clinic:
    """A gateway on a disk; `restart` is what a new process would find."""

    def __init__(self, folder, *, wide: int = 8, examples: Examples | None = None) -> None:
        self.folder = folder
        self.net = model(wide)
        self.start = flat_parameters(self.net)
        self.examples = examples or Examples()
        self.ledger: Ledger | None = None

    def restart(
        self,
        *,
        name: GatewayId = CLINIC,
        policy: Policy = GENEROUS,
        overrides: Overrides | None = None,
        seed: int | None = None,
        micro_batch: int = 16,
        gradients: GradientsBy = GradientsBy.ONE_BACKWARD,
    ) -> Gateway:
        if self.ledger is not None:
            self.ledger.close()
        given = None if seed is None else InsecureSeed(seed, name)
        self.ledger = Ledger.open(f"sqlite:///{self.folder / 'ledger.db'}", seed=given)
        site = Site(
            task=Toy(),
            model=self.net,
            labels=LABELS,
            dataset=self.examples,
            specimens=Examples(8, seed=5).batch(range(8)),
            micro_batch=micro_batch,
            gradients=gradients,
        )
        updates = UpdateStore(self.folder / "updates")
        rules = SiteRules(name, "letters", policy, overrides or Overrides())
        return Gateway(site, self.ledger, updates, rules)

    def begun(
        self,
        how: Hyperparameters = HOW,
        *,
        rounds: int = 5,
        wire_format: str = "float32",
        **changes,
    ) -> Gateway:
        gateway = self.restart(**changes)
        agreed = self.plan(how, rounds=rounds, wire_format=wire_format)
        assert isinstance(gateway.accept(RUN, agreed, PLAN), Accepted)
        return gateway

    def plan(self, how: Hyperparameters = HOW, *, wire_format: str = "float32", **changes):
        agreed = plan(how, net=self.net, **changes)
        first = Weights(layout_of(self.net), self.start.numpy()).digest
        how_sent = {"wire_format": WireFormat(wire_format), "initial_weights": first}
        return agreed.model_copy(update=how_sent)

    def train(self, number: int = 1, *, run: RunId = RUN, seed: int | None = None) -> TrainRound:
        """Ask for a round from the model's first weights, or from others."""
        flat = self.start if seed is None else values(layout_of(self.net).size)
        weights = Weights(layout_of(self.net), flat.numpy())
        return TrainRound(run, number, DeliveredWeights(weights.digest, weights))

    def charged(self) -> list[tuple]:
        """What another process reads in the ledger's file."""
        with sqlite3.connect(self.folder / "ledger.db") as other:
            return other.execute("select run, round, state from charges").fetchall()


@pytest.fixture
def clinic(tmp_path):
    made = Clinic(tmp_path)
    yield made
    if made.ledger is not None:
        made.ledger.close()


@pytest.mark.parametrize("gradients", list(GradientsBy))
def test_a_model_that_trains_nothing_is_refused_with_the_way_out(clinic, gradients):
    clinic.net.requires_grad_(False)
    with pytest.raises(NothingToTrain, match="no parameter with requires_grad=True: let the task"):
        clinic.restart(gradients=gradients)


def test_a_round_is_the_clipped_sum_over_declared_units_times_rate(clinic):
    """With next to no noise, by plain backward; 37 rows, of which the plan declares 40."""
    clinic.examples = Examples(37)
    quiet = ONE_STEP.model_copy(update={"noise_multiplier": 1e-7, "clipping_norm": 0.5})
    total = torch.zeros_like(clinic.start)
    for row in range(37):
        clinic.net.zero_grad()
        loss(clinic.net, clinic.examples.batch([row])).sum().backward()
        named = sorted(clinic.net.named_parameters())
        gradient = torch.cat([parameter.grad.flatten() for _, parameter in named])
        total += gradient * min(1.0, 0.5 / float(gradient.norm()))
    expected = -total.numpy() / 40
    update = clinic.begun(quiet).fed_round(clinic.train())
    np.testing.assert_allclose(update.values, expected, atol=0.02 * np.abs(expected).max())


DOCUMENTS = ((4,), (0, 9, 1), (2, 3), tuple(range(10, 37)))  # one is larger than a micro-batch


def document_plan(clinic, how: Hyperparameters = HOW, **changes):
    """A plan whose unit is the document, of which this gateway declares 40."""
    return clinic.plan(how, unit=Unit.DOCUMENT, **changes)


def naive_sum(clinic, clipping_norm: float) -> np.ndarray:
    """The sum over documents, each of whose gradients is summed by plain backward, then clipped."""
    total = torch.zeros_like(clinic.start)
    for rows in DOCUMENTS:
        clinic.net.zero_grad()
        loss(clinic.net, clinic.examples.batch(list(rows))).sum().backward()
        named = sorted(clinic.net.named_parameters())
        gradient = torch.cat([parameter.grad.flatten() for _, parameter in named])
        total += gradient * min(1.0, clipping_norm / float(gradient.norm()))
    return total.numpy()


@pytest.mark.parametrize("how", GradientsBy)
def test_a_round_of_documents_clips_the_sum_of_each_document_once(clinic, how):
    """With next to no noise; 4 documents of 33 rows, the plan declares 40 documents."""
    clinic.examples = Examples(37)
    clinic.examples.documents = DOCUMENTS
    quiet = ONE_STEP.model_copy(update={"noise_multiplier": 1e-7, "clipping_norm": 0.5})
    gateway = clinic.restart(gradients=how)
    assert isinstance(gateway.accept(RUN, document_plan(clinic, quiet), PLAN), Accepted)
    expected = -naive_sum(clinic, 0.5) / 40
    update = gateway.fed_round(clinic.train())
    np.testing.assert_allclose(update.values, expected, atol=0.02 * np.abs(expected).max())
    (booked,) = clinic.ledger.charges()
    assert (booked.terms.unit, booked.event.sampling_rate) == (Unit.DOCUMENT, 1.0)


def test_a_document_is_read_whole_or_not_at_all(clinic):
    clinic.examples.documents = DOCUMENTS
    gateway = clinic.restart()
    offered = document_plan(clinic, HOW.model_copy(update={"local_steps": 40}))
    assert isinstance(gateway.accept(RUN, offered, PLAN), Accepted)
    read = []
    clinic.examples.on_read = read.append
    gateway.fed_round(clinic.train())
    small = [set(rows) for rows in read if max(rows) < 10]
    assert small
    assert all(set(d) <= rows or not set(d) & rows for rows in small for d in DOCUMENTS[:3])


def test_a_plan_of_a_unit_that_the_data_do_not_carry_is_refused_and_nothing_begun(clinic):
    gateway = clinic.restart()
    verdict = gateway.accept(RUN, document_plan(clinic), PLAN)
    assert (verdict.reason, verdict.field) == (RefusalReason.DATA_UNFIT, "")
    assert verdict.sentence.startswith("notes.jsonl, line 3: no document is named")
    with pytest.raises(RunNotBegun):
        gateway.fed_round(clinic.train())


def test_units_that_share_a_row_are_refused(clinic):
    clinic.examples.documents = ((0, 1), (1, 2))
    verdict = clinic.restart().accept(RUN, document_plan(clinic), PLAN)
    assert (verdict.reason, verdict.field) == (RefusalReason.DATA_UNFIT, "")


def test_data_that_were_charged_under_one_unit_are_not_charged_under_another(clinic):
    clinic.examples.documents = DOCUMENTS
    gateway, second = clinic.begun(), RunId("run-2")
    assert isinstance(gateway.accept(second, document_plan(clinic), PLAN), Accepted)  # none is yet
    gateway.fed_round(clinic.train())
    read = []
    clinic.examples.on_read = read.append
    with pytest.raises(UnitChanged, match="charged under the unit example, and the plan's unit is"):
        gateway.fed_round(clinic.train(run=second))
    assert read == []
    assert clinic.charged() == [(RUN, 1, "ready")]
    verdict = clinic.restart().accept(second, document_plan(clinic), PLAN)
    assert (verdict.reason, verdict.field) == (RefusalReason.DATA_UNFIT, "privacy.unit")
    assert "ask the operator for a plan of unit example" in verdict.sentence
    assert isinstance(clinic.restart().accept(RunId("run-3"), clinic.plan(), PLAN), Accepted)


def test_the_same_rows_in_other_documents_have_other_keys(clinic):
    """Two sums under one noise would give their difference away."""
    clinic.examples.documents = DOCUMENTS
    gateway = clinic.restart()
    assert isinstance(gateway.accept(RUN, document_plan(clinic), PLAN), Accepted)
    gateway.fed_round(clinic.train())
    clinic.examples.documents = (DOCUMENTS[0] + DOCUMENTS[1], *DOCUMENTS[2:])
    verdict = clinic.restart().accept(RUN, document_plan(clinic), PLAN)
    assert isinstance(verdict, Refused)
    assert verdict.reason is RefusalReason.NOT_REPEATABLE
    assert "other values of: data" in verdict.sentence


def noise_of_a_round(clinic, how: Hyperparameters) -> np.ndarray:
    """A round of empty batches, in units of the noise on the mean."""
    update = clinic.begun(how).fed_round(clinic.train())
    return update.values * (40 * how.sampling_rate) / (how.noise_multiplier * how.clipping_norm)


def test_the_noise_is_on_the_sum_not_on_the_mean(tmp_path):
    wide = Clinic(tmp_path, wide=2000)
    noise = noise_of_a_round(wide, NOISE_ONLY.model_copy(update={"clipping_norm": 0.3}))
    assert kstest(noise, norm(scale=1.0).cdf).pvalue > 1e-4
    assert kstest(noise, norm(scale=1.1).cdf).pvalue < 1e-4  # the test can fail


def test_every_step_has_noise_of_its_own(tmp_path):
    wide = Clinic(tmp_path, wide=2000)
    noise = noise_of_a_round(wide, NOISE_ONLY.model_copy(update={"local_steps": 4}))
    assert kstest(noise, norm(scale=2.0).cdf).pvalue > 1e-4  # one noise four times: 4.0


def test_an_empty_batch_is_noised_and_counted(clinic):
    update = clinic.begun(NOISE_ONLY).fed_round(clinic.train())
    assert (update.values != 0).all()
    assert [booked.event.steps for booked in clinic.ledger.charges()] == [1]


def test_an_example_that_is_not_finite_leaves_the_round_finite(clinic):
    clinic.examples.inputs[3, 0] = math.nan
    update = clinic.begun(ONE_STEP).fed_round(clinic.train())
    assert np.isfinite(update.values).all()


def test_the_charge_is_on_the_disk_before_the_first_example_is_read(clinic):
    gateway = clinic.begun()
    seen = []
    clinic.examples.on_read = lambda _: seen.append(clinic.charged())
    gateway.fed_round(clinic.train())
    assert seen
    assert all(charged == [(RUN, 1, "charged")] for charged in seen)


def test_the_update_is_on_the_disk_when_it_is_returned(clinic):
    update = clinic.begun().fed_round(clinic.train())
    assert clinic.charged() == [(RUN, 1, "ready")]
    assert (clinic.folder / "updates" / update.digest).read_bytes() == update.to_bytes()


def test_a_round_asked_for_again_gives_the_same_bytes_and_reads_nothing(clinic):
    gateway = clinic.begun()
    first = gateway.fed_round(clinic.train())
    clinic.examples.on_read = pytest.fail
    assert gateway.fed_round(clinic.train()).digest == first.digest
    assert clinic.begun().fed_round(clinic.train()).to_bytes() == first.to_bytes()
    assert len(clinic.charged()) == 1


class Killed(BaseException):
    """The process ends here."""


def test_killed_while_training_it_gives_the_same_bytes_again(clinic):
    gateway = clinic.begun()
    reads = []

    def kill(rows) -> None:
        reads.append(rows)
        if len(reads) == 2:
            raise Killed

    clinic.examples.on_read = kill
    with pytest.raises(Killed):
        gateway.fed_round(clinic.train())
    clinic.examples.on_read = lambda _: None
    update = clinic.begun().fed_round(clinic.train())
    (clinic.folder / "updates" / update.digest).unlink()
    assert clinic.begun().fed_round(clinic.train()).to_bytes() == update.to_bytes()
    assert clinic.charged() == [(RUN, 1, "ready")]


@pytest.mark.parametrize("wire_format", ROUNDED)
def test_what_is_kept_and_sent_again_is_what_was_rounded_once(clinic, wire_format):
    form = clinic.plan(wire_format=wire_format).update_form
    update = clinic.begun(wire_format=wire_format).fed_round(clinic.train())
    assert len(update.data) == form.byte_length
    assert (clinic.folder / "updates" / update.digest).read_bytes() == update.to_bytes()
    assert clinic.ledger.charges()[0].update == update.digest
    again = clinic.begun(wire_format=wire_format).fed_round(clinic.train())
    assert again.to_bytes() == update.to_bytes()
    (clinic.folder / "updates" / update.digest).unlink()
    trained_again = clinic.begun(wire_format=wire_format).fed_round(clinic.train())
    assert trained_again.to_bytes() == update.to_bytes()
    assert clinic.charged() == [(RUN, 1, "ready")]


@pytest.mark.parametrize("wire_format", ROUNDED)
def test_rounding_comes_after_the_noise_and_changes_nothing_before_it(tmp_path, wire_format):
    """The same seed in either format: the one is the other's values, encoded."""
    exact, rounded = (Clinic(tmp_path / name) for name in ("exact", "rounded"))
    updates = []
    for clinic, changes in ((exact, {}), (rounded, {"wire_format": wire_format})):
        clinic.folder.mkdir()
        updates.append(clinic.begun(ONE_STEP, seed=7, **changes).fed_round(clinic.train()))
        clinic.ledger.close()
    values, got = updates[0].values, updates[1].values
    width = np.abs(values) * 2.0**-8
    if wire_format == "int8":
        width = np.full(values.size, np.abs(values).max() / 127 * (1 + 2.0**-14))
    assert (np.abs(got - values) <= width).all()
    assert (got != values).any()


def test_the_stream_that_rounds_is_not_that_of_the_noise_or_of_the_batches(clinic):
    clinic.begun().fed_round(clinic.train())
    booked = clinic.ledger.charges()[0]
    charged = ChargedRound(
        RoundCharge(booked.terms, booked.round, booked.parent, booked.event),
        b"s" * 32,
        booked.clipping_norm,
        None,
        fresh=True,
    )
    keys = {stream.key for stream in (charged.rounding, charged.noise, charged.sampling)}
    assert len(keys) == 3
    assert charged.rounding.key in keys  # and no new one each time
    other = replace(charged, charge=replace(charged.charge, round=2))
    assert other.rounding.key != charged.rounding.key


def test_bytes_that_cannot_be_repeated_never_leave(clinic):
    update = clinic.begun().fed_round(clinic.train())
    (clinic.folder / "updates" / update.digest).unlink()
    gateway = clinic.begun()
    clinic.examples.inputs += 1.0  # behind the gateway's back
    with pytest.raises(UpdateNotRepeatable):
        gateway.fed_round(clinic.train())


def test_on_a_full_disk_no_example_is_read(clinic):
    gateway = clinic.begun(rounds=500)
    with clinic.ledger._engine.connect() as connection:  # the same limit as a full disk's
        pages = connection.exec_driver_sql("pragma page_count").scalar()
        connection.exec_driver_sql(f"pragma max_page_count = {pages}")
    asked, read = [0], []
    clinic.examples.on_read = lambda _: read.append(asked[-1])

    def train() -> None:
        for number in range(1, 500):
            asked.append(number)
            gateway.fed_round(clinic.train(number))

    with pytest.raises(LedgerUnreadable, match="disk is full"):
        train()
    assert max(read) == asked[-1] - 1


def test_rounds_differ_in_their_noise(clinic):
    gateway = clinic.begun()
    first, second = (gateway.fed_round(clinic.train(number)) for number in (1, 2))
    assert first.digest != second.digest
    assert len(clinic.charged()) == 2


def test_a_second_parent_is_refused_before_anything_is_read(clinic):
    gateway = clinic.begun()
    gateway.fed_round(clinic.train())
    clinic.examples.on_read = pytest.fail
    with pytest.raises(Equivocation):
        gateway.fed_round(clinic.train(seed=3))


def test_weights_that_were_not_announced_are_neither_trained_nor_charged(clinic):
    gateway = clinic.begun()
    clinic.examples.on_read = pytest.fail
    train = clinic.train()
    announced = replace(train.parent, announced=WeightsId("f" * 64))
    with pytest.raises(ForeignWeights, match="the orchestrator announced ffffffffffff"):
        gateway.fed_round(replace(train, parent=announced))
    train.parent.weights.values[0] += 1  # after its digest was looked at
    with pytest.raises(ForeignWeights):
        gateway.fed_round(train)
    assert clinic.charged() == []


def test_weights_of_another_layout_are_refused(clinic):
    gateway = clinic.begun()
    other = Weights(Layout.of({"w": (2,)}), np.zeros(2, dtype=np.float32))
    with pytest.raises(MalformedWeights, match="another layout"):
        gateway.fed_round(TrainRound(RUN, 1, DeliveredWeights(other.digest, other)))


@pytest.mark.parametrize("number", [0, 6])
def test_a_round_that_the_plan_does_not_have_is_not_charged(clinic, number):
    gateway = clinic.begun(rounds=5)
    with pytest.raises(RoundNotPlanned, match="its plan has rounds 1 to 5"):
        gateway.fed_round(clinic.train(number))
    assert clinic.charged() == []


def test_a_run_that_was_not_accepted_is_not_trained(clinic):
    with pytest.raises(RunNotBegun):
        clinic.restart().fed_round(clinic.train())


def test_an_update_that_is_not_finite_stays_here(clinic):
    wild = HOW.model_copy(update={"learning_rate": 1e38, "noise_multiplier": 1e3})
    with pytest.raises(NotFinite):
        clinic.begun(wild).fed_round(clinic.train())
    assert clinic.charged() == [(RUN, 1, "charged")]


def test_a_published_round_is_not_trained_again(clinic):
    gateway = clinic.begun()
    kept = [gateway.fed_round(clinic.train(number)).digest for number in (1, 2)]
    assert clinic.ledger.release(RUN, 1) == (kept[0],)
    clinic.examples.on_read = pytest.fail
    with pytest.raises(RoundReleased):
        gateway.fed_round(clinic.train(1))
    assert gateway.fed_round(clinic.train(2)).digest == kept[1]
    clinic.restart()
    assert [path.name for path in (clinic.folder / "updates").iterdir()] == [kept[1]]


def test_bytes_that_no_charge_speaks_for_are_dropped_at_the_start(clinic):
    clinic.begun()
    UpdateStore(clinic.folder / "updates").keep(b"never recorded")
    clinic.restart()
    assert list((clinic.folder / "updates").iterdir()) == []


def test_accepting_projects_all_rounds_of_the_plan(clinic):
    verdict = clinic.restart().accept(RUN, clinic.plan(rounds=3), PLAN)
    assert verdict.projected.pld == epsilon_pld([PrivacyEvent(2.0, 0.5, steps=6)], 1e-5)


def test_a_begun_run_goes_on_with_the_values_that_it_began_with(clinic):
    clinic.begun()
    offered = clinic.plan(bounds=Bounds(noise_multiplier=Range(minimum=1.0)))
    changed = clinic.restart(overrides=Overrides(noise_multiplier=5.0))
    assert changed.accept(RUN, offered, PLAN).effective == HOW
    assert changed.accept(RunId("run-2"), offered, PLAN).effective.noise_multiplier == 5.0


def test_a_run_does_not_go_on_under_another_plan(clinic):
    clinic.begun()
    verdict = clinic.restart().accept(RUN, clinic.plan(), PlanId("9" * 64))
    assert (verdict.reason, verdict.field) == (RefusalReason.NOT_REPEATABLE, "")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("task.name", {"name": "other"}),
        ("task.digest", {"digest": "7" * 64}),
        ("task.labels", {"labels": ("no", "maybe")}),
        ("task.layout", {"layout": Layout.of({"w": (2,)})}),
    ],
)
def test_a_plan_for_another_task_is_refused(clinic, field, changes):
    offered = clinic.plan()
    other = offered.model_copy(update={"task": offered.task.model_copy(update=changes)})
    verdict = clinic.restart().accept(RUN, other, PLAN)
    assert (verdict.reason, verdict.field) == (RefusalReason.TASK_MISMATCH, field)
    assert verdict.sentence.startswith(f"{field}: the plan needs ")


def test_a_refused_plan_begins_no_run(clinic):
    gateway = clinic.restart(policy=Policy(epsilon_budget=1e6, noise_multiplier_floor=9.0))
    assert gateway.accept(RUN, clinic.plan(), PLAN).reason is RefusalReason.NOISE_FLOOR
    with pytest.raises(RunNotBegun):
        gateway.fed_round(clinic.train())


def test_rounds_beside_another_run_stop_at_the_budget(clinic):
    """Both plans pass alone; together they may not spend more than the budget."""
    how = HOW.model_copy(update={"noise_multiplier": 20.0, "sampling_rate": 1.0})
    second = RunId("run-2")
    gateway = clinic.restart(policy=Policy(epsilon_budget=0.9))
    for run in (RUN, second):
        assert isinstance(gateway.accept(run, clinic.plan(how, rounds=8), PLAN), Accepted)
    asked = (clinic.train(number, run=run) for number in range(1, 9) for run in (RUN, second))
    with pytest.raises(BudgetExhausted, match=r"an epsilon of 0\.9, the budget of this gateway's"):
        list(map(gateway.fed_round, asked))
    assert 2 < len(clinic.charged()) < 16
    spent = epsilon_of(clinic.ledger, "letters", 1e-5)
    assert spent.pld < spent.rdp <= 0.9
    assert gateway.fed_round(clinic.train(1)).digest  # what is charged stays free


def test_a_seeded_gateway_repeats_itself_stamps_and_reports_no_epsilon(tmp_path):
    updates = []
    for folder, name in (("one", CLINIC), ("two", CLINIC), ("three", GatewayId("other"))):
        (tmp_path / folder).mkdir()
        clinic = Clinic(tmp_path / folder)
        gateway = clinic.restart(name=name, seed=11)
        assert gateway.accept(RUN, clinic.plan(), PLAN).projected is None
        updates.append(gateway.fed_round(clinic.train()).digest)
        assert epsilon_of(clinic.ledger, "letters", 1e-5) is None
        clinic.ledger.close()
    assert updates[0] == updates[1] != updates[2]
