"""A training set as the model reads it: every part coded with one code book."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.trainers import Labelled
from ml_assets.core.training_sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class CodedSet:
    """A training set as the model reads it, and the code book it was coded with."""

    signature: Signature
    vocabulary: Vocabulary
    train: Labelled
    validation: Labelled
    test: Labelled


def code_training_set(training_set: TrainingSet, signature: Signature, vocabulary: Vocabulary) -> CodedSet:
    """Code the parts of a training set; labels as float32, 0 and 1 where they are booleans."""

    def labelled(table: pa.Table) -> Labelled:
        labels = table["label"].to_numpy().astype(np.float32)
        return Labelled(inputs=encode(table, signature, vocabulary), labels=labels)

    return CodedSet(
        signature=signature,
        vocabulary=vocabulary,
        train=labelled(training_set.train),
        validation=labelled(training_set.validation),
        test=labelled(training_set.test),
    )
