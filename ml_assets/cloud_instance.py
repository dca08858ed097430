"""The compute logs of the Dagster instance outside a laptop: in the log bucket of the environment, in S3 or GCS."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from dagster import Field
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from ml_assets.backends.environments import Environment
from ml_assets.core.errors import BadInput

# Judgement: whoever watches a long step sees its last words within this many seconds.
_UPLOAD_SECONDS = 30


class EnvironmentComputeLogs(ComputeLogManager, ConfigurableClass):
    """What ``compute_logs`` in deploy/cloud/dagster.yaml names: it becomes Dagster's own manager for S3 or GCS.

    The bucket is derived from the environment's name like every other address, so that one dagster.yaml serves all.
    """

    @classmethod
    def config_type(cls) -> Mapping[str, Field]:
        """Return the settings it has: none."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> ComputeLogManager:
        """Return the manager of this environment's log bucket; raise BadInput where that bucket is not there."""
        parts = urlsplit(Environment.current().logs_url)
        settings = {"bucket": parts.netloc, "prefix": "compute_logs", "upload_interval": _UPLOAD_SECONDS}
        if parts.scheme == "s3":
            from dagster_aws.s3 import S3ComputeLogManager

            return S3ComputeLogManager(inst_data=inst_data, skip_empty_files=False, **settings)
        from dagster_gcp.gcs import GCSComputeLogManager
        from dagster_shared.check import CheckError

        try:
            return GCSComputeLogManager(inst_data=inst_data, **settings)
        except CheckError as error:  # it asks for the bucket, and fails without a word where there is none
            raise BadInput(
                f"there is no bucket gs://{parts.netloc} for what steps print; "
                f"create it: gcloud storage buckets create gs://{parts.netloc}"
            ) from error
