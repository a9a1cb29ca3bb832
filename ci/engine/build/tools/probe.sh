# Looks at paths of a file system that is mounted at /.al/root. /.al/step/asks has one question a line; each answer
# goes to /.al-answers under its number.
#
#   <n> look <path>           stat of what the path leads to
#   <n> lstat <path>          stat of the path itself
#   <n> list <depth> <path>   stat of everything below (depth 0: however deep)
#   <n> pull <path>           everything below, as a tar file; a lone file as it is
#
# Links are followed as if /.al/root were the root: nothing outside of it is ever read.

bb=/.al/bin/busybox
root=/.al/root
to=/.al-answers
format='%f|%s|%u|%g|%Y|'

resolve() { # path, whether to follow a link at its end: sets real (without root)
    todo=${1#/} real='' hops=0
    while [ -n "$todo" ]; do
        part=${todo%%/*}
        case $todo in */*) todo=${todo#*/} ;; *) todo='' ;; esac
        case $part in
            '' | .) continue ;;
            ..) real=${real%/*}; continue ;;
        esac
        if [ -h "$root$real/$part" ] && { [ -n "$todo" ] || [ "$2" = yes ]; }; then
            hops=$((hops + 1))
            [ $hops -le 40 ] || return 1
            target=$($bb readlink "$root$real/$part")
            case $target in /*) real='' ;; esac
            todo=$target${todo:+/$todo}
            continue
        fi
        [ -e "$root$real/$part" ] || [ -h "$root$real/$part" ] || return 1
        real=$real/$part
    done
}

$bb mkdir -p $to
while IFS= read -r line; do # not in words: a path may end in a space
    number=${line%% *} rest=${line#* }
    ask=${rest%% *} rest=${rest#* }
    path=${rest#* }
    case $ask in
        look)
            resolve "$rest" yes && $bb stat -c "$format${real:-/}" "$root$real" >$to/$number
            ;;
        lstat)
            resolve "$rest" no && {
                $bb stat -c "$format${real:-/}" "$root$real"
                [ ! -h "$root$real" ] || $bb readlink "$root$real"
            } >$to/$number
            ;;
        list)
            resolve "$path" yes && {
                depth=${rest%% *}
                if [ -d "$root$real" ]; then
                    cd "$root$real/" || exit 1
                    set --
                    [ "$depth" = 0 ] || set -- -maxdepth "$depth"
                    $bb find . "$@" -exec $bb stat -c "$format%n" {} + >$to/$number
                    $bb find . "$@" -type l -exec $bb sh -c '
                        for link; do echo "$link"; /.al/bin/busybox readlink "$link"; done' sh {} + >$to/$number.links
                    cd /
                else
                    $bb stat -c "$format." "$root$real" >$to/$number
                fi
            }
            ;;
        pull)
            resolve "$rest" yes && {
                if [ -d "$root$real" ]; then
                    $bb tar cf $to/$number -C "$root$real/" .
                else
                    $bb stat -c "$format." "$root$real" >$to/$number.file
                    $bb cp "$root$real" $to/$number
                fi
            }
            ;;
    esac
done </.al/step/asks
exit 0
