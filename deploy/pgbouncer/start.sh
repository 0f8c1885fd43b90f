#!/bin/sh
# Write the one user's password where PgBouncer reads it, in memory, and run PgBouncer.
set -eu
umask 077
printf '"vl2v" "%s"\n' "$(printf %s "${POSTGRES_PASSWORD:?must be set}" | sed 's/"/""/g')" >/run/pgbouncer/userlist.txt
unset POSTGRES_PASSWORD
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
