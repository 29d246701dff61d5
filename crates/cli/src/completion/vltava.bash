# Completion of PROGRAM for bash.
_PROGRAM() {
    # Bash takes words apart at = and : too. Where no blank stands between two, they were one.
    local rest="${COMP_LINE:0:COMP_POINT}" trimmed word index
    local -a words=()
    for (( index = 0; index <= COMP_CWORD; index++ )); do
        trimmed="${rest#"${rest%%[![:space:]]*}"}"
        word="${COMP_WORDS[index]}"
        if (( index == COMP_CWORD )); then
            # Only what stands before the cursor.
            word="$trimmed"
        fi
        if (( index > 0 )) && [[ "$trimmed" == "$rest" ]]; then
            words[${#words[@]} - 1]="${words[${#words[@]} - 1]}$word"
        else
            words+=("$word")
        fi
        rest="${trimmed#"$word"}"
    done
    local last=$(( ${#words[@]} - 1 )) kept="" quoted="" part
    if [[ "${words[last]}" == [\"\']* ]]; then
        quoted=yes
        words[last]="${words[last]:1}"
    fi
    # Outside of quotes, bash replaces only what stands behind the last of those characters.
    for part in = : @; do
        if [[ -z "$quoted" && "$COMP_WORDBREAKS" == *"$part"* && "${words[last]}" == *"$part"* ]]; then
            part="${words[last]%"$part"*}$part"
            if (( ${#part} > ${#kept} )); then
                kept="$part"
            fi
        fi
    done
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate="${candidate#"$kept"}"
        if [[ -z "$quoted" && "$candidate" == *[!A-Za-z0-9_./:=@%+,~-]* ]]; then
            printf -v candidate %q "$candidate"
        fi
        COMPREPLY+=("$candidate")
    done < <(VARIABLE=bash command PATH_OF_BINARY -- "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=:@/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
if [[ "${BASH_VERSINFO[0]}" -gt 4 || ( "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 ) ]]; then
    complete -o nosort -F _PROGRAM PROGRAM
else
    complete -F _PROGRAM PROGRAM
fi
