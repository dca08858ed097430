"""What an ablation found, as it is kept by as-of date and read again."""

from dataclasses import dataclass
from datetime import date

import msgspec

from ml_assets.core.errors import ArtifactMissing, BadInput, DataMissing
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.ports import ArtifactStore


@dataclass(frozen=True, kw_only=True)
class ViewGain:
    """What one view adds: the mean validation loss without it less that of the full model; above 0 the view helps.

    ``margin`` is how far the truth may lie to either side, 95 times in 100. ``importance`` is the loss increase when
    the view's columns are shuffled for a full model: high where others could replace it, too.
    """

    view: str
    n_columns: int
    gain: float
    margin: float
    importance: Estimate

    @property
    def verdict(self) -> str:
        """Whether the gain is beyond the noise: ``helps``, ``hurts`` or ``within the noise``."""
        if abs(self.gain) <= self.margin:
            return "within the noise"
        return "helps" if self.gain > 0 else "hurts"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """All views of one use case, what adds most first.

    ``full_loss`` is the mean validation loss of the full models, ``seed_noise`` the standard deviation of such a loss
    from seed to seed, pooled over all variants. ``n_train`` of ``n_train_available`` training rows were used.
    """

    use_case: str
    as_of: date
    training_set: str
    first_validation_day: date
    last_validation_day: date
    n_train: int
    n_train_available: int
    n_validation: int
    n_seeds: int
    full_loss: float
    seed_noise: float
    views: tuple[ViewGain, ...]


def save_ablation(store: ArtifactStore, ablation: Ablation) -> str:
    """Write an ablation as of its date, replacing an earlier one, and return the path."""
    path = ablation_path(ablation.use_case, ablation.as_of)
    store.put(path, msgspec.json.format(msgspec.json.encode(ablation)))
    return path


def load_ablation(store: ArtifactStore, use_case_name: str, as_of: date) -> Ablation:
    """Read the ablation as of a date; raise DataMissing where there is none, BadInput for a file that is none."""
    path = ablation_path(use_case_name, as_of)
    try:
        return msgspec.json.decode(store.get(path), type=Ablation)
    except ArtifactMissing as error:
        raise DataMissing(
            f"{use_case_name} has no ablation as of {as_of}; run `ml-assets ablation --use-case {use_case_name} "
            f"--as-of {as_of}`"
        ) from error
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} holds no ablation ({error}); run it again") from error


def ablation_path(use_case_name: str, as_of: date) -> str:
    """Return where the ablation as of a date is kept."""
    return artifact_path(f"ablations/{identifier(use_case_name)}/{as_of.isoformat()}.json")
