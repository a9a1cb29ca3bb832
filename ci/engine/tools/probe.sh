# Looks at paths of a file system. /.al/step/asks has one question a line; each answer goes to /.al-answers.
#
#   <n> look <path>       stat of what the path leads to
#   <n> lstat <path>      stat of the path itself
#   <n> list <depth> <path>   stat of everything below
#   <n> pull <path>       everything below, as a tar file; a lone file as "file"

bb=/.al/bin/busybox
to=/.al-answers
format='%f|%s|%u|%g|%Y|'

$bb mkdir -p $to
while IFS=' ' read -r number ask rest; do
    path=${rest#* }
    case $ask in
        look)
            real=$($bb realpath "$rest" 2>/dev/null) && [ -e "$real" ] &&
                { $bb stat -c "$format%n" "$real" | $bb head -n 1; } >$to/$number
            ;;
        lstat)
            if [ -e "$rest" ] || [ -h "$rest" ]; then
                folder=$($bb realpath "${rest%/*}/" 2>/dev/null)
                { $bb stat -c "$format${folder%/}/${rest##*/}" "$rest"; $bb readlink "$rest"; } >$to/$number
            fi
            ;;
        list)
            real=$($bb realpath "$path" 2>/dev/null) && [ -e "$real" ] && {
                depth=${rest%% *}
                cd "$real" 2>/dev/null || cd /
                if [ -d "$real" ]; then
                    set --
                    [ "$depth" = 0 ] || set -- -maxdepth "$depth"
                    # what the build itself mounts is listed as the folder it is, and our own not at all
                    [ "$real" != / ] || set -- "$@" -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' \
                        ! -path './.al' ! -path './.al/*' ! -path './.al-answers' ! -path './.al-answers/*'
                    $bb find . "$@" -exec $bb stat -c "$format%n" {} + >$to/$number
                    $bb find . "$@" -type l -exec $bb sh -c '
                        for link; do echo "$link"; /.al/bin/busybox readlink "$link"; done' sh {} + >$to/$number.links
                else
                    $bb stat -c "$format." "$real" >$to/$number
                fi
                cd /
            }
            ;;
        pull)
            real=$($bb realpath "$rest" 2>/dev/null) && [ -e "$real" ] && {
                if [ -d "$real" ]; then
                    cd "$real" && $bb tar cf $to/$number .
                else
                    $bb stat -c "$format." "$real" >$to/$number.file
                    $bb cp "$real" $to/$number
                fi
                cd /
            }
            ;;
    esac
done </.al/step/asks
exit 0
