# Functions of jq 1.7 that jaq lacks, or that differ in jaq. Arguments are closures where jq's are.

# regular expressions: flags may be null; pattern and flags may be one list
def _pattern: if isarray then .[0] else . end;
def _flags: if isarray then .[1] else null end;
def _named: map(select(.name) | {(.name): .string}) | add + {};
def test($re; $flags): matches($re; $flags) | any;
def test($val): test($val | _pattern; $val | _flags);
def match($re; $flags): matches($re; $flags)[] | .[0] + {captures: .[1:]};
def match($val): match($val | _pattern; $val | _flags);
def capture($re; $flags): matches($re; $flags)[] | _named;
def capture($val): capture($val | _pattern; $val | _flags);
def scan($re; $flags): matches($re; "g" + $flags)[] | [.[].string] | if length > 1 then .[1:] else .[0] end;
def scan($re): scan($re; null);
def split($re; $flags): split_($re; $flags + "g");
def split($sep): if isstring and ($sep | isstring) then . / $sep else error("split input and separator must be strings") end;
def splits($re; $flags): split($re; $flags)[];
def splits($re): splits($re; null);
def sub($re; f; $flags): reduce split_matches($re; $flags)[] as $x (""; . + ($x | if isarray then _named | f end));
def sub($re; f): sub($re; f; null);
def gsub($re; f; $flags): sub($re; f; "g" + $flags);
def gsub($re; f): gsub($re; f; null);
def ascii: [.] | implode;

# strings
def ltrimstr($x): if isstring and ($x | isstring) and startswith($x) then .[($x | length):] else . end;
def rtrimstr($x): if isstring and ($x | isstring) and endswith($x) and $x != "" then .[:length - ($x | length)] else . end;
def _cell(f): if isnumber then tostring elif isboolean then tostring elif . == null then "" elif isstring then f else error("\(type) cannot be formatted in a row") end;
def @csv: if isarray then map(_cell("\"" + (split("\"") | join("\"\"")) + "\"")) | join(",") else error("\(type) cannot be formatted as a row, only a list can") end;
def @tsv: if isarray then map(_cell(split("\\") | join("\\\\") | split("\t") | join("\\t") | split("\n") | join("\\n") | split("\r") | join("\\r"))) | join("\t") else error("\(type) cannot be formatted as a row, only a list can") end;

# membership, as in SQL
def IN(s): . as $x | any(s; . == $x);
def IN(source; s): any(source; . as $x | any(s; . == $x));
def INDEX(stream; f): reduce stream as $row ({}; .[$row | f | tostring] |= $row);
def INDEX(f): INDEX(.[]; f);

def JOIN($index; f): [.[] | [., $index[f]]];
def JOIN($index; stream; f): stream | [., $index[f]];
def JOIN($index; stream; f; join): stream | [., $index[f]] | join;
def toarray: if isarray then . else [.] end;
def trimstr($x): ltrimstr($x) | rtrimstr($x);

# streams of paths and values
def tostream:
  def events($path):
    if (isarray or isobject) and length > 0
    then keys_unsorted as $keys | (. as $whole | $keys[] as $key | $whole[$key] | events($path + [$key])), [$path + [$keys[-1]]]
    else [$path, .] end;
  events([]);
def _put($path; $value):
  if $path == [] then $value
  elif $path[0] | isnumber
  then (. // []) | .[:$path[0]] + [.[$path[0]] | _put($path[1:]; $value)] + .[$path[0] + 1:]
  else (. // {}) | . + {($path[0]): (.[$path[0]] | _put($path[1:]; $value))} end;
def fromstream(f):
  foreach f as $event ([null, true];
    (if .[1] then null else .[0] end) as $before
    | if ($event | length) == 2
      then [($before | _put($event[0]; $event[1])), $event[0] == []]
      else [$before, ($event[0] | length) == 1] end;
    if .[1] then .[0] else empty end);
def truncate_stream(stream): . as $depth | null | stream | select((.[0] | length) > $depth) | .[0] |= .[$depth:];
def leaf_paths: paths(scalars);
