"""From what an observer kept to the statistics of a record."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.observers.clipping import Clipping
from quamba.observers.observer import Observer
from quamba.qtypes import QMAX, QMIN, scale_of
from quamba.reports import LayerReport
from quamba.statistics import WatchedTensor, measure


def report(
    observer: Observer, name: str, clipping: Clipping, bits: int = 8, channel_clips: Tensor | None = None
) -> LayerReport:
    """All statistics of one watched tensor.

    Args:
        observer: detailed, at the end of its sweep.
        name: as records spell it.
        clipping: the way its interval is chosen.
        bits: of the quantizer.
        channel_clips: the end of each channel's interval, float32 [C], where they are not all the same.

    Raises:
        ValueError: the observer was not detailed, or has seen nothing.
    """
    if observer.sample is None:
        raise ValueError(f"{name}: only a detailed observer can be reported")
    before = observer.before()
    clip = observer.clip(clipping) if channel_clips is None else float(channel_clips.max())
    sample = observer.sample.values()
    mean, square = observer.moments()
    std, scale = max(0.0, square - mean * mean) ** 0.5, float(scale_of(clip))
    loss = Loss.of(observer, clip) if channel_clips is None else Loss.of_channels(observer, channel_clips)
    return LayerReport(
        name=name,
        before=before,
        after=before.inside(clip),
        percentile_alpha=clipping.percentile_alpha,
        clipped_ratio=1.0 - clipping.percentile_alpha,
        measured_clipped_ratio=loss.clipped,
        count=observer.count,
        absmax=max(-before.min, before.max),
        scale=scale,
        bits=bits,
        observer=clipping.kind,
        mean=mean,
        std=std,
        median=float(sample.median()),
        p99=float(torch.quantile(sample[: 1 << 24], 0.99)),
        sqnr_db=decibels(square, loss.noise),
        saturated_ratio=loss.saturated,
        statistics=measure(
            WatchedTensor(
                name=name,
                sample=sample,
                count=observer.count,
                min=before.min,
                max=before.max,
                mean=mean,
                std=std,
                clip=clip,
                scale=scale,
                bits=bits,
                percentile_alpha=clipping.percentile_alpha,
            )
        ),
    )


@dataclass(frozen=True, slots=True)
class Loss:
    """What quantizing a tensor with one clipping interval costs.

    Attributes:
        clipped: elements outside the interval / elements.
        noise: mean square error, E (x - dequantize(quantize(x)))^2.
        saturated: elements on the first or the last code / elements.
    """

    clipped: float
    noise: float
    saturated: float

    @classmethod
    def of(cls, observer: Observer, clip: float) -> "Loss":
        """Of per-tensor 8-bit quantization with the interval [-clip, clip].

        What is clipped is counted and its error summed exactly, from the tail; rounding errors are alike everywhere and
        come from the sample.
        """
        if observer.sample is None:
            raise ValueError("only a detailed observer knows what quantization costs")
        sample, scale = observer.sample.values(), scale_of(clip)
        codes = (sample / scale).round_().clamp_(QMIN, QMAX)
        saturated = float(((codes <= QMIN) | (codes >= QMAX)).float().mean())
        squares = (sample - codes * scale).double().square()
        above = observer.above(clip)
        if above is None:
            # Documents so unlike each other that more than the tail is clipped: all from the sample.
            return cls(float((sample.abs() > clip).double().mean()), float(squares.mean()), saturated)
        share = above.numel() / observer.count
        inside = squares[sample.abs() <= clip]
        rounding = float(inside.mean()) if inside.numel() else 0.0
        clipping = float((above - clip).double().square().sum()) / observer.count
        return cls(share, (1.0 - share) * rounding + clipping, saturated)

    @classmethod
    def of_channels(cls, observer: Observer, clips: Tensor) -> "Loss":
        """Of 8-bit quantization with an interval for each channel, float32 [C]; all from the sample."""
        if observer.sample is None:
            raise ValueError("only a detailed observer knows what quantization costs")
        sample, clip = observer.sample.values(), clips[observer.sample.channels()]
        scale = scale_of(clip)
        codes = (sample / scale).round_().clamp_(QMIN, QMAX)
        return cls(
            clipped=float((sample.abs() > clip).double().mean()),
            noise=float((sample - codes * scale).double().square().mean()),
            saturated=float(((codes <= QMIN) | (codes >= QMAX)).float().mean()),
        )


def least_loss(candidates: Iterable[Clipping], loss: Callable[[Clipping], Loss]) -> Clipping:
    """The candidate with the least quantization error; of equals the one that clips least.

    Args:
        candidates: at least one.
        loss: what each of them costs.
    """
    ordered = sorted(candidates, key=lambda clipping: -clipping.percentile_alpha)
    return min(ordered, key=lambda clipping: loss(clipping).noise)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): infinite where nothing is lost, NaN where there is no signal either."""
    if noise == 0.0:
        return math.inf if signal > 0.0 else math.nan
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


__all__ = ["Loss", "decibels", "least_loss", "report"]
