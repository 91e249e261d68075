# The bundles that boxlite mounts besides the folders they are in: Debian's and Arch Linux's, and Fedora's.
bundles="/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt"

# Prints those that are symlinks to a file.
linked_bundles() {
    for bundle in $bundles; do
        [ ! -L "$bundle" ] || [ ! -f "$bundle" ] || echo "$bundle"
    done
}
