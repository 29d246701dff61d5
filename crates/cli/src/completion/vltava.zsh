#compdef PROGRAM
# Completion of PROGRAM for zsh; source it after `compinit`, or put it as _PROGRAM on the fpath.
_PROGRAM() {
    local -a going_on finished
    local candidate
    # Each begins with a sign: whether a blank may follow it.
    for candidate in "${(@f)$(
        VARIABLE=zsh command PATH_OF_BINARY -- "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null
    )}"; do
        case "$candidate" in
            +*) going_on+=("${candidate#+}") ;;
            .*) finished+=("${candidate#.}") ;;
        esac
    done
    (( $#going_on )) && _describe -V values going_on -S ''
    (( $#finished )) && _describe -V values finished
}
if [[ "${funcstack[1]}" == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
