# Changes a file system in a build: what Dockerfile instructions cannot say. Arguments: the root
# ("" for the real one), the operation, its operands.

bb=/.al/bin/busybox

root=$1
shift
case $1 in
    rm) # paths, or a regular expression for them in "~..."
        shift
        for path in "$@"; do
            case $path in
                '~'*)
                    cd "$root/" && $bb find . -xdev ! -path './.al*' ! -path . | $bb sed 's,^\./,,' |
                        $bb grep -E -- "${path#?}" |
                        while IFS= read -r found; do $bb rm -rf -- "$root/$found"; done
                    ;;
                *) $bb rm -rf -- "$root$path" ;;
            esac
        done
        exit 0
        ;;
    dir) # mode path: made, and those on the way to it, with that mode; what is there stays as it is
        path=$root rest=$3
        while [ -n "$rest" ]; do
            rest=${rest#/}
            path=$path/${rest%%/*}
            case $rest in */*) rest=/${rest#*/} ;; *) rest='' ;; esac
            if [ ! -d "$path" ]; then
                if [ -e "$path" ] || ! $bb mkdir "$path"; then
                    echo "al-refused: mkdir $3: not a directory" >&2
                    exit 1
                fi
                $bb chmod "$2" "$path"
            fi
        done
        ;;
    link) # target path
        path=$root$3
        $bb mkdir -p "${path%/*}/"
        if [ -e "$path" ] || [ -h "$path" ]; then
            echo "al-refused: symlink $2 @ROOT@$3: file exists" >&2
            exit 1
        fi
        $bb ln -s -- "$2" "$path"
        ;;
    clear) # path: what is in the way of the folder /.al/src, which will be laid there
        path=$root rest=$2
        while [ -n "${rest#/}" ]; do
            rest=${rest#/}
            path=$path/${rest%%/*}
            case $rest in */*) rest=/${rest#*/} ;; *) rest='' ;; esac
            if [ -e "$path" ] && [ ! -d "$path" ]; then $bb rm -f -- "$path"; fi
        done
        cd /.al/src || exit 1
        $bb find . ! -path . | while IFS= read -r found; do
            there=$path/$found
            if [ -d "$found" ] && [ ! -h "$found" ]; then
                if [ -h "$there" ] || { [ -e "$there" ] && [ ! -d "$there" ]; }; then $bb rm -f -- "$there"; fi
            elif [ -d "$there" ] && [ ! -h "$there" ]; then
                $bb rm -rf -- "$there"
            fi
        done
        ;;
    stamp) # seconds: every time set
        $bb find "$root/" -xdev ! -path '/.al*' ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' \
            -exec $bb touch -h -d "@$2" {} +
        ;;
    own) # user:group path
        $bb chown -R -h "$2" "$root$3"
        ;;
    owners) # list of "uid:gid path"
        while IFS=' ' read -r who path; do $bb chown -h "$who" "$root/$path"; done <"$2"
        ;;
    left) # index: what a step left in a mount, copied out of its cache mount
        $bb mkdir -p /.al-left
        [ ! -e "/.al/out/m$2" ] || $bb cp -a "/.al/out/m$2" /.al-left/m
        ;;
    mount) # that replaces what is here
        if [ -e /left/m ]; then
            $bb rm -rf "$root"/* "$root"/.[!.]* "$root"/..?*
            $bb cp -a /left/m/. "$root/"
        fi
        ;;
    certificates) # the host's bundle, into the cache mount from which steps have it
        $bb rm -f /.al/ca/new
        if [ -e /.al/ca.pem ]; then $bb cp /.al/ca.pem /.al/ca/new; else : >/.al/ca/new; fi
        $bb chmod 0444 /.al/ca/new
        $bb mv -f /.al/ca/new /.al/ca/ca.pem # in one piece: another step may be reading
        : >"$root/ready"
        ;;
    results) # what a step printed, copied out of its cache mount
        $bb mkdir -p /.al-r
        for name in code stdout stderr combined refused; do
            [ -e "/.al/out/$name" ] && $bb cp "/.al/out/$name" "/.al-r/$name"
        done
        exit 0
        ;;
esac
