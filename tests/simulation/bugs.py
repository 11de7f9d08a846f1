"""Mistakes that can be put into the running code, each of which the simulation must find."""

from __future__ import annotations

from gateway.updates import UpdateStore
from orchestrator.weight_store import WeightStore
from tests.simulation import bugs_of_gateways as gateways
from tests.simulation import bugs_of_journals as journals
from tests.simulation import bugs_of_rounds as rounds
from tests.simulation.planting import Bug, leaves_out

BUGS = (
    Bug("updates acknowledged before fsync", leaves_out(UpdateStore, 1, "sync")),
    Bug("weights named before fsync", leaves_out(WeightStore, 2, "sync")),
    Bug("no folder fsync of updates", leaves_out(UpdateStore, 1, "sync_folder")),
    Bug("no folder fsync of weights", leaves_out(WeightStore, 2, "sync_folder")),
    Bug("weights named before they are written", leaves_out(WeightStore, 2, "rename", 0.05)),
    Bug("weights named a moment before fsync", leaves_out(WeightStore, 2, "sync", 0.05)),
    Bug("no unique key, and what is in doubt recorded again", journals.no_unique_key),
    Bug("a stale epoch accepted", journals.stale_epoch_accepted),
    Bug("an epoch that is never raised", journals.epoch_never_raised),
    Bug("an orchestrator blind to its successor", journals.blind_to_successor),
    Bug("a loss that does not fit an abandoned round", journals.lost_after_abandoned),
    Bug("a process that never stops acting", journals.journal_ahead),
    Bug("a receipt before the journal", journals.receipt_before_journal),
    Bug("a restart that is not recorded", journals.restart_not_recorded),
    Bug("a sum in floats", rounds.float_sum),
    Bug("a duplicate counted", rounds.duplicate_counted),
    Bug("folded before it is checked", rounds.fold_before_check),
    Bug("resumed without a digest check", rounds.resumed_without_digest),
    Bug("closed without a quorum", rounds.quorum_not_checked),
    Bug("closed over awaited updates", rounds.awaited_counted),
    Bug("a late update accepted", rounds.late_update_accepted),
    Bug("a round reopened on another parent", rounds.reopened_on_another_parent),
    Bug("charged after reading", gateways.charge_after_reading),
    Bug("booked after sending", gateways.booked_after_sending),
    Bug("a secret that is not kept", gateways.secret_not_kept),
    Bug("released by its receipt", gateways.released_by_receipt),
    Bug("never released", gateways.never_released),
)
