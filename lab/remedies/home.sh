# Prints the user's home directory.
home() {
    getent passwd "$user" | cut -d : -f 6
}

# Prints the folder into which boxlite unpacks its programs.
programs() {
    echo "$(home)/.local/share/boxlite/runtimes"
}

# as_user NAME COMMAND...: run it as this user, who may put a link to any place into the home directory at any time.
# The user's other programs can take over the command, so it gets no terminal on which they could type.
as_user() {
    account=$1
    shift
    if [ "$(id -u)" != 0 ]; then
        "$@"
        return
    fi
    printed=$(
        setsid --wait setpriv --reuid="$(id -u "$account")" --regid="$(id -g "$account")" --init-groups -- \
            "$@" </dev/null 2>&1
    ) || {
        printf '%s\n' "$printed" | tr -cd '[:print:]\n' >&2
        return 1
    }
    [ -z "$printed" ] || printf '%s\n' "$printed"
}

# enter_programs: make the folder of the programs the current one. What is done to `.` is done to this folder, even
# if the user moves it away meanwhile. Fails and prints the reason if a link leads to a folder of somebody else.
enter_programs() {
    cd -P "$(programs)" || return
    [ "$(realpath .)" = "$(realpath "$(home)")/.local/share/boxlite/runtimes" ] || {
        echo "$(programs) is a link to another place, on which nothing is mounted"
        return 1
    }
    [ "$(stat -c %u .)" = "$(id -u "$user")" ] || {
        echo "$(programs) does not belong to $user, so nothing is mounted on it"
        return 1
    }
}
