# without_c: print `USER PATH` for the folder of the programs and for each folder and file in it that does not have the
# attribute C. Fails where attributes cannot be read. A path with a line break is left out: boxlite makes none, and it
# would be read as two.
without_c() {
    # find goes back to the folder that it was started in, which has to be one that the user may enter.
    listed=$(cd / && as_user "$user" find "$(programs)" ! -path '*
*' \( -type d -o -type f \) -exec lsattr -d {} +) || return 1
    printf '%s\n' "$listed" | sed -n '/^[^ ]*C/d; s/^[^ ]* //p' | while read -r path; do
        printf '%s %s\n' "$user" "$path"
    done
}

# write_again FLAG: give each folder and file of without_c's lines the flag. Only an empty file can take it.
write_again() {
    # shellcheck disable=SC2016 # These are variables of the user's shell.
    while read -r owner path; do
        as_user "$owner" sh -euc '
            if [ -d "$2" ]; then
                chattr "$1" "$2"
            elif [ -f "$2" ]; then
                new=$(mktemp "$2.XXXXXX")
                chattr "$1" "$new"
                cp --reflink=never --preserve=all "$2" "$new"
                mv --no-target-directory "$new" "$2"
            fi' sh "$1" "$path"
    done
}
