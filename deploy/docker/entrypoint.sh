#!/bin/sh
# Gives the container what dbt parsed when the image was built, in the folder it may write to; then becomes its command.
# A volume may hold what another image parsed: that is replaced. Each file is renamed into place, because other
# containers may be reading it.
set -eu
(
    cd /opt/parsed
    find dbt -type d -exec mkdir -p "$ML_ASSETS_HOME/{}" \;
    find dbt -type f | while read -r file; do
        cmp -s "$file" "$ML_ASSETS_HOME/$file" && continue
        aside=$(mktemp "$ML_ASSETS_HOME/$file.XXXXXX")
        cp "$file" "$aside"
        mv "$aside" "$ML_ASSETS_HOME/$file"
    done
)
exec "$@"
