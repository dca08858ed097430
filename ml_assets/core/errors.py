"""Every error this project raises, as one tree.

MlAssetsError
├── BadInput                what came in is not what was agreed
│   ├── ContractBroken          a raw table lacks a column or has it in another type
│   ├── InvalidName             a name that could escape its folder or its SQL statement
│   ├── InvalidDeclaration      a use case or feature view contradicts itself
│   └── LedgerBroken            an entry of the promotion ledger is missing or unreadable
├── NotReady                something upstream has not been materialized yet
│   ├── DataMissing             a table or a partition is absent or empty
│   ├── TrainingDataMissing     too few labelled days before the as-of date, or labels of one class only
│   └── ChampionMissing         nobody is in charge on that day
├── TrainingFailed          a training ended without a usable model
├── ProcessesDisagree       the processes of one training are not at the same epoch
├── PackageRefused          a model package fails its verification
├── AlreadyExists           a conditional create found the name taken
├── ArtifactMissing         no artifact has that name
├── AlertFailed             someone who was to be told could not be reached
├── SourceError             a source of raw tables could not hand over its rows; nothing was written
│   ├── SourceMissing           there is no such bucket, folder, table or host
│   ├── SourceDenied            credentials are missing, wrong or expired, or do not allow it
│   ├── SourceUnavailable       it did not answer, or asked to be left alone for a while
│   ├── HalfWritten             a file is still being written, or ends too early
│   └── FileChanged             a file was replaced or removed between listing and reading
├── StoreError              the artifact store could not do what it was asked
│   ├── StoreRefused            it says no: the bucket, the credentials, the rights or the settings are wrong
│   └── StoreUnavailable        it did not answer, or had no room for the request, for as long as was waited
└── WarehouseError          the warehouse could not do what it was asked
    ├── WarehouseBusy           another writer is at it, or the warehouse does not answer in time
    ├── SchemaChanged           the rows to write do not fit the table that is there
    ├── StorageFull             the disk has no room for the write
    ├── AccessRefused           the credentials are missing, expired, or not allowed to do this
    └── QuotaExhausted          a limit on cost or on use is reached; trying again at once does not help
"""


class MlAssetsError(Exception):
    """Any error this project raises on purpose. The message says what was found, expected, and what to do."""


class BadInput(MlAssetsError):
    """What came in is not what was agreed."""


class ContractBroken(BadInput):
    """A raw table lacks a column or has it in another type; the day is not written."""


class InvalidName(BadInput):
    """A name that could escape its folder or its SQL statement."""


class InvalidDeclaration(BadInput):
    """A use case or feature view contradicts itself."""


class LedgerBroken(BadInput):
    """An entry of the promotion ledger is missing or unreadable; a person must look before anyone is in charge."""


class NotReady(MlAssetsError):
    """Something upstream has not been materialized yet."""


class DataMissing(NotReady):
    """A table or a partition is absent or empty."""


class TrainingDataMissing(NotReady):
    """There are too few labelled days before the as-of date, or their labels are all alike."""


class ChampionMissing(NotReady):
    """No model is in charge on the day asked for."""


class TrainingFailed(MlAssetsError):
    """A training ended without a usable model; nothing is saved."""


class ProcessesDisagree(MlAssetsError):
    """The processes of one training are not at the same epoch: none may go on, whatever it trains."""


class PackageRefused(MlAssetsError):
    """A model package fails its verification and is not opened."""


class AlreadyExists(MlAssetsError):
    """A conditional create found the name taken."""


class ArtifactMissing(MlAssetsError):
    """No artifact has that name."""


class AlertFailed(MlAssetsError):
    """Someone who was to be told could not be reached; the message holds no address that opens anything."""


class SourceError(MlAssetsError):
    """A source of raw tables could not hand over its rows; nothing was written."""


class SourceMissing(SourceError):
    """There is no such bucket, folder, table or host."""


class SourceDenied(SourceError):
    """Credentials are missing, wrong or expired, or they do not allow what was asked."""


class SourceUnavailable(SourceError):
    """The source did not answer in time, or asked to be left alone for a while; trying again may help."""


class HalfWritten(SourceError):
    """A file is still being written, or ends too early."""


class FileChanged(SourceError):
    """A file was replaced or removed between listing and reading; reading again takes the newer one."""


class StoreError(MlAssetsError):
    """The artifact store could not do what it was asked."""


class StoreRefused(StoreError):
    """The store says no, and will until a person changes the bucket, the credentials, the rights or the settings."""


class StoreUnavailable(StoreError):
    """The store did not answer, or had no room for the request, for as long as was waited; try again later."""


class WarehouseError(MlAssetsError):
    """The warehouse could not do what it was asked."""


class WarehouseBusy(WarehouseError):
    """Another writer is at it, or the warehouse does not answer; try again when it is done."""


class SchemaChanged(WarehouseError):
    """The rows to write do not fit the table that is there."""


class StorageFull(WarehouseError):
    """The disk has no room for the write; nothing was changed."""


class AccessRefused(WarehouseError):
    """The credentials are missing, expired, or not allowed to do this."""


class QuotaExhausted(WarehouseError):
    """A limit on cost or on use is reached: this project's own cap, or a quota of the provider; nothing was changed."""
