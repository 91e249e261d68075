# Sorts after the other files in this folder: the last line that fits a user counts.
limits=/etc/security/limits.d/zz-boxlite-$name.conf

# kernel/fork.c: `init_task.signal->rlim[RLIMIT_NPROC].rlim_max = max_threads/2`.
default_limit() {
    echo $(($(sysctl -n kernel.threads-max) / 2))
}

# limit_of USER LINE FIELD: a limit that a new login of this user has: of the line of /proc/PID/limits that begins so, this
# field. It runs no start-up file of the user's shell, and gets no terminal on which the user's other programs could type.
limit_of() {
    look="awk '/^$2/ { print \$$3 }' /proc/self/limits"
    if [ "$(id -u)" = 0 ]; then
        su -s /bin/sh -c "$look" "$1" </dev/null 2>&1
    elif [ "$(id -un)" = "$1" ]; then
        sh -c "$look"
    else
        die 2 "only root can look at the limits of $1"
    fi
}
