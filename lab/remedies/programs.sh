# Prints the folder into which boxlite unpacks its programs.
programs() {
    echo "$(getent passwd "$user" | cut -d : -f 6)/.local/share/boxlite/runtimes"
}

# without_c FOLDER: prints the folders and files in it, itself first, that do not have the attribute C. Fails where
# attributes cannot be read. Left out is what has a line break in its path: boxlite makes none, and the rest of such a
# name would lead root to another file.
without_c() {
    listed=$(find "$1" ! -path '*
*' \( -type d -o -type f \) -exec lsattr -d {} +) || return 1
    printf '%s\n' "$listed" | sed -n '/^[^ ]*C/d; s/^[^ ]* //p'
}

# written_again FLAG: gives each folder and file of the standard input the flag. An empty file alone can take it.
written_again() {
    while read -r path; do
        if [ -d "$path" ]; then
            chattr "$1" "$path"
        elif [ -f "$path" ]; then
            new=$(mktemp "$path.XXXXXX")
            chattr "$1" "$new"
            cp --reflink=never --preserve=all "$path" "$new"
            mv --no-target-directory "$new" "$path"
        fi
    done
}
