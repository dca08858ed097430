#!/bin/sh
# Gives the container what dbt parsed when the image was built, in the folder it may write to; then becomes its command.
set -eu
[ -e "$ML_ASSETS_HOME/dbt" ] || cp -r /opt/parsed/dbt "$ML_ASSETS_HOME/dbt"
exec "$@"
