"""What features are computed from a recording, and how: `FeatureSettings` and its presets.

Needs neither DALI nor torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from dali_asr.errors import UsageError, brief
from dali_asr.segments import FrameTiming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Preset = Literal["course", "kaldi", "librosa"]


@dataclass(frozen=True)
class FeatureSettings:
    """How features are computed from recordings. By default, those of the preset `course`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
        "allow_inf_nan": False,
    }

    preset: Preset = "course"
    """Where the other settings come from unless they are given: `course` (28 MFCC as in CMU 11-785 data), `kaldi`
    (13 MFCC as Kaldi computes them, without dither), `librosa` (20 MFCC, the defaults of `librosa.feature.mfcc`)."""
    kind: Literal["mfcc", "log-mel", "log-power"] = "mfcc"
    """`mfcc`, the logarithms of mel bands (`log-mel`), or those of the power spectrum (`log-power`)."""
    sample_rate: int = 16_000
    """Recordings are resampled to this rate, in Hz."""
    window: float = 0.025
    """Length of a frame's samples, in seconds."""
    hop: float = 0.010
    """Time from one frame to the next, in seconds."""
    centered: bool = False
    """Center frame t at t times the hop, with zeros beyond both ends, rather than let it begin there."""
    window_function: Literal["hamming", "hann", "hann-midpoint", "povey"] = "hamming"
    """`hamming` and `povey` (Kaldi's) are symmetric, `hann` is periodic as in librosa, `hann-midpoint` is DALI's."""
    n_fft: int = 512
    """Size of the Fourier transform; frames are padded with zeros."""
    sample_scale: float = 32_768.0
    """Samples in [-1, 1] are multiplied by this; 32768 is the range of 16-bit integers."""
    power_per_bin: bool = True
    """Divide the power spectrum by `n_fft`."""
    preemphasis: float = 0.97
    """Coefficient of the pre-emphasis filter; 0 for none."""
    preemphasis_start: Literal["zero", "repeat"] = "zero"
    """What pre-emphasis sees before the first sample of a recording: `zero`, or that sample again (`repeat`)."""
    remove_dc: bool = False
    """Subtract the mean of each frame's samples; pre-emphasis is then within each frame, as in Kaldi. Needs `povey`."""
    mel_bands: int = 40
    """Number of mel bands."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """Formula of the mel scale."""
    mel_triangles: Literal["hertz", "mel"] = "hertz"
    """Scale on which the sides of a band's triangle are straight: `hertz`, or `mel` as in Kaldi."""
    mel_area: bool = False
    """Divide each band by its width in Hz, as in Slaney's toolbox."""
    min_frequency: float = 20.0
    """Lower edge of the first band, in Hz."""
    max_frequency: float | None = None
    """Upper edge of the last band, in Hz; null: half the sample rate."""
    log: Literal["natural", "decibels"] = "natural"
    """Natural logarithm, or ten times the decimal one."""
    log_floor: float = 1.0
    """Smaller values are raised to this before the logarithm."""
    top_decibels: float | None = None
    """Raise logarithms to at least this far below the largest of the recording; null for no such limit."""
    coefficients: int = 28
    """Number of MFCC, of an orthonormal DCT-II."""
    lifter: float = 0.0
    """Parameter Q of the lifter, 1 + Q / 2 · sin(πn / Q); 0 for none."""
    energy: bool = False
    """Replace the first MFCC by the logarithm of the frame's energy."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(FeatureSettings).items():
            value, allowed = getattr(self, name, None), get_args(hint)
            if get_origin(hint) is Literal and value not in allowed:
                raise UsageError(f"{name}: received {brief(value)}; allowed are {', '.join(allowed)}")
        for name in ("sample_rate", "window", "hop", "n_fft", "sample_scale", "mel_bands", "coefficients", "log_floor"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: received {brief(getattr(self, name))}; expected more than 0")
        for problem in self._conflicts():
            raise UsageError(problem)

    def _conflicts(self) -> Iterator[str]:
        """Yield what does not fit each other."""
        low, high, half = self.min_frequency, self.highest_frequency, self.sample_rate / 2
        if self.timing.window > self.n_fft:
            yield f"n_fft: received {self.n_fft}, less than the {self.timing.window} samples of a window; raise it"
        if not 0 <= low < high <= half:
            yield f"max_frequency: received {low:g} to {high:g} Hz; expected a range within 0 to {half:g} Hz"
        if self.kind == "mfcc" and self.coefficients > self.mel_bands:
            yield f"coefficients: received {self.coefficients}, more than the {self.mel_bands} mel bands"
        if self.mel_triangles == "mel" and self.mel_scale != "htk":
            yield f"mel_scale: received {self.mel_scale}; mel_triangles of mel need htk"
        if self.remove_dc and self.centered:
            yield "centered: received true; remove_dc needs frames within the recording"
        if self.remove_dc and self.window_function != "povey":
            yield f"window_function: received {self.window_function}; remove_dc needs povey"
        if self.energy and not self.remove_dc:
            yield "energy: received true; it is that of frames without their mean, so it needs remove_dc"

    @property
    def timing(self) -> FrameTiming:
        """When frames are."""
        rate = self.sample_rate
        return FrameTiming(rate, max(1, round(self.window * rate)), max(1, round(self.hop * rate)), self.centered)

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return {"mfcc": self.coefficients, "log-mel": self.mel_bands, "log-power": self.n_fft // 2 + 1}[self.kind]

    @property
    def highest_frequency(self) -> float:
        """Upper edge of the last mel band, in Hz."""
        return self.sample_rate / 2 if self.max_frequency is None else self.max_frequency

    @classmethod
    def of(cls, preset: str = "course", **changes: Any) -> FeatureSettings:
        """Return the settings of a preset, with changes.

        Raises:
            UsageError: there is no such preset or setting, or values do not fit each other.
        """
        if preset not in PRESETS:
            raise UsageError(f"preset: received {brief(preset)}; allowed are {', '.join(PRESETS)}")
        unknown = set(changes) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(f"{min(unknown)}: unknown key")
        return replace(PRESETS[preset], **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; `timing` is what they give in samples."""
        return {**asdict(self), "timing": asdict(self.timing)}

    def options(self) -> str:
        """Return the options of `prepare` and `features` that give these settings."""
        base = PRESETS[self.preset]
        changed = [field.name for field in fields(self) if getattr(self, field.name) != getattr(base, field.name)]
        values = (f"features.{name}={json.dumps(getattr(self, name)).strip(chr(34))}" for name in changed)
        return " ".join([f"--preset {self.preset}", *(f"--set {value}" for value in values)])

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureSettings:
        """Return the settings that `to_json` wrote.

        Raises:
            TypeError: they have other keys.
            UsageError: values do not fit each other.
        """
        return cls(**{name: value for name, value in values.items() if name != "timing"})


PRESETS: dict[str, FeatureSettings] = {
    "course": FeatureSettings(),
    "kaldi": FeatureSettings(
        preset="kaldi",
        window_function="povey",
        power_per_bin=False,
        remove_dc=True,
        mel_bands=23,
        mel_triangles="mel",
        log_floor=2.0**-23,  # std::numeric_limits<float>::epsilon()
        coefficients=13,
        lifter=22.0,
        energy=True,
    ),
    "librosa": FeatureSettings(
        preset="librosa",
        sample_rate=22_050,
        window=2048 / 22_050,
        hop=512 / 22_050,
        centered=True,
        window_function="hann",
        n_fft=2048,
        sample_scale=1.0,
        power_per_bin=False,
        preemphasis=0.0,
        mel_bands=128,
        mel_scale="slaney",
        mel_area=True,
        min_frequency=0.0,
        log="decibels",
        log_floor=1e-10,
        top_decibels=80.0,
        coefficients=20,
    ),
}


def with_preset(value: Any) -> Any:
    """Complete the keys of a `features` section by those of its preset."""
    if not isinstance(value, dict) or value.get("preset", "course") not in PRESETS:
        return value
    return {**asdict(PRESETS[value.get("preset", "course")]), **value}
