/* Which records a Trigger wants: Amazon EventBridge's event pattern language, whole, over records that are
 * JSON text. A pattern is compiled once; a record is scanned once: no tree is built, what no path of the
 * pattern leads to is only checked for being JSON, strings are decoded when they hold escapes and are asked
 * for, and nothing is allocated once the working memory has grown to what records need. Owned by the caller;
 * one thread at a time (a filter keeps its working memory). docs/filter.md tells the language to users.
 *
 * The judge is Amazon's own engine, Event Ruler (tools/ruler, tests/integration/test_filter.py): its Machine,
 * that is rulesForJSONEvent(), as EventBridge uses it. Its Ruler.matches() is another, older engine: it knows
 * no array consistency, follows no path through an array, and takes the characters of a wildcard for a
 * regular expression's.
 *
 * What is not obvious:
 * - A member's name may hold dots: "a.b" and "a" with "b" in it are the same place, in the pattern and in the
 * record.
 * - An array in the record: any of its values may match, however deep arrays stand in arrays. Of two fields
 * that are matched within objects (or arrays) of one array, both must be matched within the same one of them.
 * Plain values of an array are not bound so.
 * - "$or" is the name of a field where it holds no list of objects of members; then every "$or" of the
 * pattern is one.
 * - {"exists": false}: no value stands there, null being one, an empty array or object none, nor an object
 * with members. Where arrays are on the path, only what goes with the fields matched before is looked at, in
 * the order of the paths as Java sorts strings.
 * - Numbers compare by value where they are what the shortest text of a double says: all of up to 15 digits,
 * some of 16 and 17. Others, like 12345678901234567890, are equal to what is written exactly alike, match
 * "anything-but", and no other operator.
 * - A string in the pattern that is an IPv4 or IPv6 address matches the address however it is written.
 * "exactly" does not.
 * - "anything-but" needs a value: a field that is missing does not match; true, null and values of another
 * type do.
 * - Case is ignored by both cases that Java gives for each single character: "ß" is "SS", "ſ" is "S" but not
 * "s".
 *
 * Records: one JSON object (RFC 8259), up to 1 GiB, white space around it; nested however deep beside what
 * the pattern looks at, and a million levels there. A member that comes twice has both values. Invalid UTF-8
 * in strings is compared as the bytes it is. Half a surrogate pair, "\ud800", is U+FFFD. What holds too many
 * values that match apart but not together is an error once four million steps were tried. Patterns: up to 64
 * KiB of UTF-8, 64 levels, 1,000 combinations of "$or" (EventBridge's bound), 256 fields in each (the
 * reference's). A field that is named twice counts as it stands last.
 *
 * Where the reference differs, because of a fault in it or because ours is stricter (each is in the test):
 * - {"prefix": "a\""} matches "a" there, and {"suffix": "\"a"} too: it counts its own quotes.
 * - {"cidr": …}, and an address as a value, match numbers that look like the address in hexadecimal, and
 * addresses of the other kind.
 * - A list that mixes wildcards with equals-ignore-case, or long numbers with addresses, loses matches there,
 * or finds wrong ones.
 * - Of the combinations of "$or" under one name, addRule() loses one that has a value in common with an
 * earlier one in the last field.
 * - Characters beyond U+FFFF match nothing there when case is ignored. Here they are compared as they are.
 * - Java before 19 writes some doubles in more digits than they need. There 8.41e21 and 1e23 do not compare
 * as numbers, and 90071999254740992 does; here it is the other way round, as it is there with a later Java.
 * - {"": {"a": …}} means "a" there. The largest double as a bound is refused there.
 * - Half a surrogate pair is "?" there, sometimes; in a pattern it is refused here.
 * - "10.0.0.0/8/" and "10.0.0.0/+8" are networks there; what follows the object is not read there, in a
 * pattern nor in a record.
 * - Its bounds for records: 1,000 digits in a number, names of 50,000 bytes; more levels than here. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

struct filter;

/* Compiles a pattern, of which a copy is kept. The error names the place in it and what to do,
 * "detail.state[0].numeric: expected …". */
int filter_new(struct filter **, struct str pattern_json, struct error *) MUST_CHECK;
struct filter *filter_free(struct filter *); /* NULL fine; returns NULL */
DEFINE_CLEANUP(struct filter *, filter_free)

/* Does the record match? -1 with an error when it is no valid JSON object, is too big, or memory is out. */
int filter_match(struct filter *, struct str json, bool *matches, struct error *) MUST_CHECK;

/* Why it did not, for people: the pattern's first field that no value satisfies, "value.state: no value
 * matches [\"open\"]"; of several combinations, of the one that is nearest to a match. Also says when the
 * record matches, or is none. */
void filter_explain(struct filter *, struct str json, struct buf *why);
