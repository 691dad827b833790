"""Whether what an experiment needs is there: model, device, tasks, data. Asked before anything heavy happens.

The library is imported when it is first asked: `--help` and options that are wrong by themselves need no torch.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantizer.config import RunConfig
from quantizer.errors import SpecError, Violation
from quantizer.roots import OutsideError, Roots, below, check_entries

if TYPE_CHECKING:
    from quamba.models.config import ModelConfig
    from quamba.models.quantization import Quantization

_NAMED_CALIBRATION = ("builtin", "pile")


def examine(config: RunConfig, roots: Roots | None = None) -> RunConfig:
    """The configuration with its paths, device and calibration data settled.

    Args:
        config: complete in itself.
        roots: for jobs of others: models and files are looked for, and kept, below these directories and nowhere
            else; models that the hub would have to send are left for the job to find.

    Raises:
        SpecError: something is not there, with every reason.
    """
    return _Examiner(config, roots).examine()


class _Examiner:
    def __init__(self, config: RunConfig, roots: Roots | None) -> None:
        self._config = config
        self._roots = roots
        self._root = roots.models if roots is not None else None
        self._violations: list[Violation] = []

    def _wrong(self, field: str, message: str) -> None:
        self._violations.append(Violation(field, message))

    def _guard(self, field: str, check: Callable[[], object]) -> None:
        from quamba.errors import QuambaError

        try:
            check()
        except (QuambaError, ValueError) as error:
            self._wrong(field, str(error))

    def examine(self) -> RunConfig:
        """See `examine`."""
        from quamba.evals import check_tasks
        from quamba.models.loading import resolve_device

        config = self._config
        path, from_hub, structure, stored = self._find_model()
        if stored is not None:
            config = self._as_stored(config, stored)
        elif config.quantize:
            config = self._fit_recipe(config, structure)
        if config.artifacts:
            config = replace(config, artifacts=self._folder("pretrained_dir", config.artifacts))
        if self._root is not None and len(config.sweep) > 1:
            self._wrong(
                "percentile_alpha", "a job is one experiment: submit one for each alpha, or run `quantizer run`"
            )
        if config.shots:
            self._guard("task_list", lambda: check_tasks(config.tasks))
        ppl_paths = self._perplexity_data() if config.eval_ppl else config.ppl_datasets
        calib_data = config.calib_data or ("pile" if from_hub else "builtin")
        calib_path = self._calibration_data(calib_data) if config.quantize else calib_data
        device = config.device
        if self._root is None:  # A job's device is settled when one is free.
            self._guard("device", lambda: resolve_device(config.device))
        if self._violations:
            raise SpecError(tuple(self._violations))
        if self._root is None:
            device = str(resolve_device(config.device))
        return replace(
            config, model_path=path, device=device, calib_data=calib_data, calib_path=calib_path, ppl_paths=ppl_paths
        )

    def _fit_recipe(self, config: RunConfig, structure: "ModelConfig | None") -> RunConfig:
        """The configuration with what depends on the model's structure settled."""
        from quamba.hybrid import read_hybrid

        if config.hybrid_path:
            path = self._file("hybrid_blocks_config", config.hybrid_path, ())
            if self._violations:
                return config
            found: list[tuple[str, ...]] = []
            self._guard("hybrid_blocks_config", lambda: found.append(read_hybrid(Path(path))))
            config = replace(config, hybrid=found[0] if found else None)
        if config.group_heads is None:
            if structure is None and not self._violations:
                self._wrong(
                    "preset",
                    f"--preset {config.preset} depends on the model's family, which is not known before the hub sends "
                    "it: give the options themselves",
                )
            config = replace(config, group_heads=structure is not None and structure.family == "mamba2")
        if structure is not None and not self._violations:
            self._guard("quantize", lambda: config.recipe().check(structure))
        return config

    def _as_stored(self, config: RunConfig, stored: "Quantization") -> RunConfig:
        """The configuration of a model that was quantized before it was saved: the saved recipe's."""
        from quamba.flow.recipe import Recipe

        if config.quantize:
            self._wrong(
                "quantize",
                f"model {config.model} is quantized already: leave --quantize out, or give the float model",
            )
            return config
        if config.dtype != "float32":
            self._wrong("dtype", f"model {config.model} is quantized, and runs in its own types: leave --dtype out")
        recipes: list[Recipe] = []
        self._guard("model", lambda: recipes.append(Recipe.from_facts(stored.recipe)))
        if not recipes:
            return config
        recipe = recipes[0]
        return replace(
            config,
            stored=True,
            w_bits=recipe.w_bits,
            a_bits=recipe.a_bits,
            percentile_alpha=recipe.percentile_alpha,
            sweep=(recipe.percentile_alpha,),
            observer=recipe.observer_kind,
            rotation="hadamard" if recipe.rotate else "none",
            group_heads=recipe.group_heads,
            apply_gptq=recipe.apply_gptq,
            act_order=recipe.act_order,
            quantize_embedding=recipe.quantize_embedding,
            quantize_lm_head=recipe.quantize_lm_head,
            per_tensor_weights=recipe.per_tensor_weights,
            hybrid=recipe.hybrid,
        )

    def _folder(self, field: str, name: str) -> str:
        """A directory that can be written, though it need not be there yet."""
        if self._roots is not None and self._roots.output is None:
            self._wrong(
                field, f"{field}: this quantizer keeps no models of jobs (it has no --output_root): leave it out"
            )
            return name
        path = Path(name).expanduser() if self._roots is None else self._below(self._roots.output, field, name)
        try:
            existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
            usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
        except OSError as error:
            self._wrong(field, f"{field} {name[:64]!r} cannot be a path ({error})")
            return str(path)
        if not usable:
            self._wrong(field, f"{field} {name!r}: {existing} is no directory that can be written; give another")
        return str(path)

    def _find_model(self) -> tuple[str, bool, "ModelConfig | None", "Quantization | None"]:
        """Where the model is, whether that is the hub, and structure and quantization where these can be known."""
        from quamba.models.loading import check_model, is_hub_id

        name = self._config.model
        try:
            path = str(Path(name).expanduser() if self._root is None else self._below(self._root, "model", name))
            there = Path(path).exists()
            # "models/nosuch" is meant as a path where there is a directory "models".
            hub = not there and is_hub_id(name) and not Path(path).parent.is_dir()
        except (OSError, RuntimeError) as error:  # A name too long, a home that nobody has.
            self._wrong("model", f"model {name[:64]!r} cannot be a path ({error}): give a directory or a hub id")
            return name, False, None, None
        if there and self._root is not None:
            self._check_entries(Path(path), self._root)
        found: list[tuple[ModelConfig, Quantization | None]] = []
        if not hub and not there:
            where = f" below {self._root}" if self._root is not None else ""
            self._wrong(
                "model", f"no model {name!r}{where}: give a directory with config.json and weights, or a hub id"
            )
        elif not (hub and self._root is not None) and not self._violations:
            self._guard("model", lambda: found.append(check_model(name if hub else path)))
            if found:
                self._guard("stats_layers", lambda: self._config.stats_layers.of(found[0][0].n_layer))
        return (name if hub else path), hub, *(found[0] if found else (None, None))

    def _below(self, root: Path | None, field: str, name: str) -> Path:
        """The path that a name means; one that leads out of the root, through symbolic links too, is refused."""
        assert root is not None, "asked for jobs only"  # noqa: S101
        try:
            return below(root, name)
        except OutsideError as error:
            self._wrong(field, f"{field} {name[:256]!r} {error}")
            return root / "outside"

    def _check_entries(self, directory: Path, root: Path) -> None:
        try:
            check_entries(directory, root)
        except OutsideError as error:
            self._wrong("model", f"model {self._config.model[:256]!r} {error}")

    def _file(self, field: str, name: str, alternatives: tuple[str, ...]) -> str:
        path = Path(name) if self._root is None else self._below(self._root, field, name)
        try:
            there = path.is_file()
        except OSError:
            there = False
        if not there and alternatives:
            self._wrong(field, f"{field} {name!r} is neither {', '.join(alternatives)} nor a file")
        elif not there:
            self._wrong(field, f"{field} {name!r} is no file")
        return str(path)

    def _perplexity_data(self) -> tuple[str, ...]:
        from quamba.corpora import PERPLEXITY_TEXTS

        return tuple(
            name if name in PERPLEXITY_TEXTS else self._file("ppl_dataset", name, PERPLEXITY_TEXTS)
            for name in self._config.ppl_datasets
        )

    def _calibration_data(self, name: str) -> str:
        if name in _NAMED_CALIBRATION:
            return name
        path = self._file("calib_data", name, _NAMED_CALIBRATION)
        if not path.endswith((".jsonl", ".jsonl.zst", ".txt")):
            self._wrong("calib_data", f"calib_data {name!r} must end in .jsonl, .jsonl.zst or .txt")
        return path


__all__ = ["examine"]
