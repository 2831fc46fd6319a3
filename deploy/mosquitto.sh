#!/bin/sh
# Starts mosquitto with the configuration file $1 and the users in MOSQUITTO_USERS, one `name:password` a line. The
# password file that the configuration names is made anew, with hashes in place of the passwords.
set -eu
passwords=$(sed -n 's/^password_file //p' "$1")
umask 077
printf '%s\n' "$MOSQUITTO_USERS" | sed '/^$/d' >"$passwords"
unset MOSQUITTO_USERS MILLRACE_CLOUD_PASSWORD
mosquitto_passwd -U "$passwords"
exec mosquitto -c "$1"
