#!/bin/sh
# boxlite-probe {{ version }}: prints what decides whether boxlite works on this host, for a bug report.
#
# Run it as the user who runs boxlite: sh probe.sh. It needs Python 3.6 or newer, and no root. It installs nothing
# and changes nothing: it makes a small file in the home, to see whether programs may run there, a folder in /tmp, and
# a control group with a process that only waits, and removes them. It prints no name of a user or host, no address and no serial number; the home is written as ~.

read_facts() {
    "$python" -I -S - "$1" <<"END_OF_PROGRAM"
{{ programs.facts }}
END_OF_PROGRAM
}

run_probes() {
    "$python" -I -S - "$1" <<"END_OF_PROGRAM"
{{ programs.probe }}
END_OF_PROGRAM
}

show() {
    "$python" -I -S - "$1" "$2" <<"END_OF_PROGRAM"
{{ programs.show }}
END_OF_PROGRAM
}

# RHEL 8 and its relatives have Python in another folder, if nobody installed it.
python=
for name in python3 /usr/libexec/platform-python; do
    # What is called python3 may be a script that finds the interpreter by PATH, which changes below.
    [ -n "$python" ] || python=$("$name" -I -S -c "import {{ modules }}
if sys.version_info >= (3, 6): print(sys.executable)" 2>/dev/null </dev/null)
done
if [ -z "$python" ]; then
    cat >&2 <<"END_OF_TEXT"
The probe needs Python 3.6 or newer, as the program python3 with all of its standard library. There is none here.
Install it, and run the probe again:
  Debian, Ubuntu           sudo apt install python3
  Fedora, RHEL, Rocky      sudo dnf install python3
  openSUSE                 sudo zypper install python3
  Arch                     sudo pacman -S python
  Alpine                   sudo apk add python3
  NixOS                    nix-shell -p python3
Without root, any other python3 will do whose folder is in PATH, for example one of uv or conda.
END_OF_TEXT
    exit 1
fi
export LC_ALL=C PATH="{{ path }}"
cd /
facts=$(read_facts "{{ request }}") &&
    probes=$(run_probes "{\"probes\": true, \"seconds\": {{ seconds }}}") &&
    show "$facts" "$probes"
