"""What the experiments of one sweep share: data, float model, its scores, and one calibration."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from quamba.corpora import CalibrationDocuments, calibration_documents, perplexity_text
from quamba.flow.batches import TokenBatch, batch_documents, documents_at_once
from quamba.flow.calibrate import Calibration
from quamba.models.loading import LoadedModel, load_model
from quamba.models.saving import size_bytes
from quamba.reports import ProgressReport
from quamba.transforms.rotation import rotate_model
from quantizer.config import RunConfig
from quantizer.events import ExperimentResults


class Workbench:
    """Everything is made when it is first asked for.

    Args:
        experiments: those that will be run, in their order; they differ in `percentile_alpha` alone.

    Attributes:
        baseline: the scores of the float model, once somebody has measured them.
    """

    def __init__(self, experiments: Sequence[RunConfig]) -> None:
        self._config = experiments[0]
        self._recipes = [config.recipe() for config in experiments if config.quantize]
        self._waiting = len(experiments)
        self._calibration: Calibration | None = None
        self.baseline: ExperimentResults | None = None

    @cached_property
    def documents(self) -> CalibrationDocuments:
        """The calibration text."""
        config = self._config
        return calibration_documents(config.calib_path, config.calib_data_num, config.shuffle_seed)

    def find_data(self) -> None:
        """Look for all data before any heavy work: what cannot be fetched is found here."""
        if self._config.quantize:
            _ = self.documents
        for name in self._config.ppl_paths if self._config.eval_ppl else ():
            if name.startswith("wikitext2"):
                perplexity_text(name)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model as it was loaded; its weights are rotated once the calibration needs them so."""
        return load_model(self._config.model_path, self._config.device)

    @cached_property
    def model_facts(self) -> dict[str, Any]:
        """What identifies the loaded model."""
        return self.loaded.facts()

    @cached_property
    def size_before(self) -> int:
        """Bytes of the loaded model."""
        return size_bytes(self.loaded.model)

    @cached_property
    def batches(self) -> list[TokenBatch]:
        """The calibration text as tokens."""
        token_ids = self.loaded.tokenizer.encode_batch(self.documents.texts)
        return batch_documents(
            token_ids, documents_at_once(self.loaded.device, self._config.batch_size), self._config.calib_seqlen
        )

    @cached_property
    def calibration_facts(self) -> Mapping[str, Any]:
        """Which data the calibration sees."""
        documents = self.documents
        return {
            "data_set": documents.source,
            "digest": documents.digest,
            "seed": documents.seed,
            "documents": len(documents.texts),
            "document_ids": _as_ranges(documents.ids),
            "tokens": sum(int(batch.lengths.sum()) for batch in self.batches),
        }

    def calibrate(self) -> Iterator[ProgressReport]:
        """Sweep over the data, unless that was done."""
        if self._calibration is not None:
            return
        self.model_facts, self.size_before  # noqa: B018 - of the model as it was, before it is rotated
        model = self.loaded.model
        if self._recipes[0].rotate:
            rotate_model(model)
        layers = self._config.stats_layers.of(model.config.n_layer)
        calibration = Calibration(model, self._recipes, self.batches, layers)
        yield from calibration.run()
        self._calibration = calibration

    def take(self) -> tuple[LoadedModel, Calibration]:
        """The calibrated model, to be converted: a copy as long as other experiments wait for it.

        Raises:
            ValueError: nothing was calibrated.
        """
        if self._calibration is None:
            raise ValueError("calibrate first")
        if self._waiting == 1:
            return self.loaded, self._calibration
        return replace(self.loaded, model=copy.deepcopy(self.loaded.model)), self._calibration

    def end_experiment(self) -> None:
        """One less waits."""
        self._waiting -= 1


def _as_ranges(ids: tuple[int, ...]) -> str | list[int]:
    """Document numbers: "0-511" where they run without a gap, else all of them."""
    if len(ids) > 1 and ids == tuple(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}-{ids[-1]}"
    return list(ids)


__all__ = ["Workbench"]
