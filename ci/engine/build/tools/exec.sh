# Runs one step inside its container: feeds it, records what it prints and how it ends.
#
# busybox runs this, so the image needs no shell. /.al/step/step.sh sets the arguments and what is named below;
# /.al/out is a cache mount named after the step, from where the engine reads the results:
# stdout, stderr, combined, code, and refused (why the command could not be started).
# For each mount that changed: m<index>/ (its new content).

bb=/.al/bin/busybox
out=/.al/out
newline='
' # divides lists of paths
expect=SUCCESS in='' to_out='' to_err='' no_init='' mounts='' secrets='' odd=''

finish() { # code
    echo "$1" >"$out/code"
    IFS=$newline
    set -f # a path may look like a pattern
    for mount in $mounts; do keep_mount "$mount"; done
    unset IFS
    case $expect in
        ANY) { [ "$1" -lt 128 ] || [ "$1" -gt 191 ]; } && exit 0 ;;
        FAILURE) [ "$1" -ne 0 ] && { [ "$1" -lt 128 ] || [ "$1" -gt 191 ]; } && exit 0 ;;
        SUCCESS) [ "$1" -eq 0 ] && exit 0 ;;
    esac
    [ "$1" -eq 0 ] && exit 1
    exit "$1"
}

refuse() { # message
    printf '%s' "$1" >"$out/refused"
    echo -1 >"$out/code"
    exit 1
}

state_of() { # path: names, kinds, sizes, times and inodes below it
    $bb find "$1" -exec $bb stat -c '%n %f %u %g %s %i %y %z' {} + 2>/dev/null
}

keep_mount() { # index:path
    index=${1%%:*} path=${1#*:}
    state_of "$path" >"$out/.after$index"
    $bb cmp -s "$out/.before$index" "$out/.after$index" && return
    $bb mkdir "$out/m$index"
    if [ -d "$path" ]; then
        $bb cp -a "$path/." "$out/m$index/"
    else
        $bb cp -a "$path" "$out/m$index/file"
    fi
}

hide() { # words: in $line, longest first
    length=$longest
    while [ -n "$line" ] && [ $length -gt 0 ]; do
        for word in "$@"; do
            [ ${#word} -ne $length ] || line=${line//"$word"/***}
        done
        length=$((length - 1))
    done
}

scrub() { # secrets' lines become ***; without secrets bytes pass as they are
    if [ -z "$secrets" ]; then
        $bb cat
        return
    fi
    whole=''
    IFS=$newline
    set -f # a path may look like a pattern
    set -- # the words to hide: lines of the secrets, and whole values of several lines
    for file in $secrets; do
        [ -r "$file" ] || continue
        count=0
        while IFS= read -r word || [ -n "$word" ]; do
            count=$((count + 1))
            [ -z "$word" ] || set -- "$@" "$word"
        done <"$file"
        if [ $count -gt 1 ]; then
            word=$($bb cat "$file"; echo x)
            set -- "$@" "${word%x}" "$($bb cat "$file")"
            whole=1
        fi
    done
    unset IFS
    longest=0 # the longest first, so that none is left half hidden
    for word in "$@"; do [ ${#word} -le $longest ] || longest=${#word}; done
    if [ -n "$whole" ]; then # such a value can only be found in all of the output
        line=$($bb cat; echo x)
        line=${line%x}
        hide "$@"
        printf '%s' "$line"
        return
    fi
    end='\n'
    while [ -n "$end" ]; do
        IFS= read -r line || end='' # the last line has no end
        hide "$@"
        printf "%s$end" "$line"
    done
}

kept() { # name: keep standard input as this stream's output
    $bb tee -a "$out/$1" "$out/combined" >&3
}

# Two pipes have no common order. Of what both hold at once, stdout is taken to have come first: a command prints
# and then complains.
behind_stdout() {
    while $bb dd bs=65536 count=1 >"$out/.chunk" 2>/dev/null && [ -s "$out/.chunk" ]; do
        turns=0
        until [ $turns -gt 200 ] || [ -e "$out/.stdout.done" ] || ! waiting; do
            $bb usleep 2000
            turns=$((turns + 1))
        done
        kept stderr <"$out/.chunk"
    done
}

waiting() { # whether stdout has something that is not recorded yet; the pause is for its recorder to write
    read -t 0 <&6 || { $bb usleep 5000; read -t 0 <&6; }
}

record_stdout() { # redirect
    if [ -n "$1" ]; then
        $bb tee "$1" <&6 | scrub | kept stdout
    elif [ -n "$secrets" ]; then
        scrub <&6 | kept stdout
    else
        kept stdout <&6
    fi
    : >"$out/.stdout.done"
}

record_stderr() { # redirect
    if [ -n "$1" ]; then
        $bb tee "$1" <&7 | scrub | behind_stdout
    elif [ -n "$secrets" ]; then
        scrub <&7 | behind_stdout
    else
        behind_stdout <&7
    fi
    : >"$out/.stderr.done"
}

unfit() { # sets $why where the kernel would not start $program; a shell would read any text as its own
    magic='' line=''
    [ -r "$program" ] || return 0
    IFS= read -r -n 4 magic <"$program"
    case $magic in
        ?ELF) ;;
        '#!'*)
            IFS= read -r line <"$program"
            line=${line#'#!'}
            line=${line#"${line%%[! 	]*}"}
            line=${line%%[ 	]*}
            if [ ! -e "$line" ]; then
                why="fork/exec $program: no such file or directory"
            elif [ -d "$line" ] || [ ! -x "$line" ]; then
                why="fork/exec $program: permission denied"
            fi
            ;;
        *) why="fork/exec $program: exec format error" ;;
    esac
}

start() { # the command takes the place of this shell
    [ -z "$odd" ] || eval "exec $bb env $odd \"\$name\" \"\$@\"" # a shell forgets variables of such names
    exec -a "$name" "$program" "$@"
}

end_the_rest() { # a step ends with its command; what that left running goes, and so nothing holds the pipes open
    [ $$ -eq 1 ] || return 0
    found=1 turns=0
    while [ -n "$found" ] && [ $turns -lt 100 ]; do
        found='' turns=$((turns + 1))
        for stat in /proc/[0-9]*/stat; do
            line=''
            read -r line 2>/dev/null <"$stat"
            pid=${line%% *} rest=${line##*) }
            case $rest in Z* | X*) continue ;; esac
            rest=${rest#* }
            [ "${rest%% *}" = 1 ] || continue
            case $pid in "$recorder_out" | "$recorder_err") continue ;; esac
            kill -9 "$pid" 2>/dev/null && found=1
        done
    done
}

[ -e /.al/ca/ca.pem ] || { # pruned; the engine fills the mount and comes again
    echo @LOST@
    exit 1
}
$bb rm -rf "$out"/* "$out"/.[!.]*
: >"$out/stdout" >"$out/stderr"
: >"$out/combined"

. /.al/step/step.sh
[ -r /.al/volatile ] && . /.al/volatile
export PATH="${PATH-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}" # BuildKit's for an image without

if [ -s /.al/ca/ca.pem ]; then
    for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO; do
        eval "[ -n \"\${$name+set}\" ]" || export "$name=/.al/ca/ca.pem"
    done
    # uv's older and newer name of one setting; an old uv knows only the first, a new one warns of it alone
    [ -n "${UV_NATIVE_TLS+set}${UV_SYSTEM_CERTS+set}" ] || export UV_NATIVE_TLS=1 UV_SYSTEM_CERTS=1
    [ -n "${APT_CONFIG+set}" ] || export APT_CONFIG=/.al/bin/apt.conf
fi
unset SHLVL OLDPWD PWD
case $(export -p) in # variables of the Dockerfile alone, which say where something is mounted
    *AGENT_LOOP_AT_*) unset $($bb env | $bb sed -n 's/^\(AGENT_LOOP_AT_[0-9a-f]*\)=.*/\1/p') ;;
esac

[ -z "$in" ] || [ -r "$in" ] || refuse "open redirect stdin file: open @ROOT@$in: no such file or directory"
for target in "$to_out" "$to_err"; do
    [ -z "$target" ] || [ -d "${target%/*}/" ] || {
        [ "$target" = "$to_out" ] && which=stdout || which=stderr
        refuse "open redirect $which file: open @ROOT@$target: no such file or directory"
    }
done

program='' why=''
case $1 in
    */*)
        if [ ! -e "$1" ]; then
            why="fork/exec $1: no such file or directory"
        elif [ -d "$1" ] || [ ! -x "$1" ]; then
            why="fork/exec $1: permission denied"
        else
            program=$1
        fi
        ;;
    *)
        IFS=:
        for folder in $PATH; do
            if [ -f "${folder:-.}/$1" ] && [ -x "${folder:-.}/$1" ]; then
                program=${folder:-.}/$1
                break
            fi
        done
        unset IFS
        [ -n "$program" ] || why="exec: \"$1\": executable file not found in \$PATH"
        ;;
esac
[ -z "$program" ] || unfit
if [ -n "$why" ]; then
    echo "$why" >>"$out/stderr"
    echo "$why" >>"$out/combined"
    echo "$why" >&2
    finish 1
fi

IFS=$newline
set -f
for mount in $mounts; do state_of "${mount#*:}" >"$out/.before${mount%%:*}"; done
set +f
unset IFS
name=$1
shift

if [ -n "$no_init" ]; then # the command is process 1 and ends the step itself
    echo 0 >"$out/code"
    exec <"${in:-/dev/null}" >"$out/stdout" 2>"$out/stderr"
    start "$@"
fi

exec 3>&1
$bb mkfifo "$out/.stdout" "$out/.stderr"
exec 4<>"$out/.stdout" 5<>"$out/.stderr" # so that no other opening waits for its opposite
exec 6<"$out/.stdout" 7<"$out/.stderr" 8>"$out/.stdout" 9>"$out/.stderr" 4>&- 5>&-
# closed by exec: a redirection of the function would keep copies, and the pipes would never end
(exec 8>&- 9>&-; record_stdout "$to_out") &
recorder_out=$!
(exec 8>&- 9>&-; record_stderr "$to_err") &
recorder_err=$!
(exec 3>&- 6<&- 7<&- 8>&- 9>&-; start "$@") <"${in:-/dev/null}" >&8 2>&9
code=$?
exec 8>&- 9>&-
end_the_rest
turns=0 # one that could not be ended is not waited for
while [ $turns -lt 500 ] && { [ ! -e "$out/.stdout.done" ] || [ ! -e "$out/.stderr.done" ]; }; do
    $bb usleep 10000
    turns=$((turns + 1))
done
finish $code
