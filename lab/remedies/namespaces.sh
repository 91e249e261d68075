# each_limit COMMAND: call it with each limit on namespaces that bubblewrap makes besides a user namespace.
each_limit() {
    for kind in mnt uts ipc pid; do
        "$1" "user.max_${kind}_namespaces" || return
    done
}

# kernel/fork.c: `init_user_ns.ucount_max[i] = max_threads/2`.
default_limit() {
    echo $(($(sysctl -n kernel.threads-max) / 2))
}

# limit_is_high NAME
limit_is_high() {
    [ "$(sysctl -n "$1")" -ge "$(default_limit)" ]
}

# raise_limit NAME
raise_limit() {
    limit_is_high "$1" || sysctl_set "$1" "$(default_limit)"
}
