#include <stdarg.h>
#include <stdio.h>

#include "source/reader_inside.h"

enum { NOTICES = 16 };

/* ---- what is told about the whole --------------------------------------- */

/* The cause without its prefix, such as "records of partition 3: ". */
static const char *cause_of(const char *text)
{
        const char *cause = strstr(text, ": ");

        return cause ? cause : text;
}

/* Shows one failure: the text of one track, or of the list of tracks, stays as long as that one fails. If
 * many fail at once, their texts would otherwise replace each other all the time. A text with the same cause,
 * which would differ only in the track's name, replaces it only if the one shown has recovered and this one
 * fails repeatedly. final: a retry is pointless; such a failure takes precedence over a temporary one. */
static void say_failure(struct reader *r, const void *who, bool final, bool again, const struct error *err)
{
        bool same = strncmp(cause_of(r->text), cause_of(err->text),
                            sizeof(r->text) - 1 - (size_t)(cause_of(r->text) - r->text)) == 0;
        bool mine = r->blamed == who, free = !r->blamed || mine || (final && !r->blamed_final);

        if (!free)
                return;
        if (mine || !same || again || !r->text[0]) {
                r->blamed = who;
                r->blamed_final = final;
        }
        if (!same || (again && !mine))
                (void)snprintf(r->text, sizeof(r->text), "%.*s", (int)sizeof(r->text) - 1, err->text);
}

static void failure_over(struct reader *r, const void *who)
{
        if (r->blamed == who)
                r->blamed = NULL;
        if (!r->failing && !r->trouble.kind)
                r->text[0] = 0;
}

void track_stand_by(struct reader *r, struct track *t, const char *text)
{
        count(&r->standby, &t->standby, true);
        r->speaker = r->speaker ? r->speaker : t;
        if (r->speaker == t)
                (void)snprintf(r->standby_text, sizeof(r->standby_text), "%.*s",
                               (int)sizeof(r->standby_text) - 1, text);
}

void track_stand_by_over(struct reader *r, struct track *t)
{
        count(&r->standby, &t->standby, false);
        if (r->speaker == t)
                r->speaker = NULL;
}

void reader_remark(struct reader *r, enum source_state state, const char *format, ...)
{
        char *text = state == SOURCE_CONNECTED ? r->connected_text : r->connecting_text;
        va_list args;

        *text = 0;
        if (!format)
                return;
        va_start(args, format);
        (void)vsnprintf(text, sizeof(r->connected_text), format, args);
        va_end(args);
}

void track_answered(struct reader *r, struct track *t)
{
        count(&r->failing, &t->failing, false);
        count(&r->final, &t->final, false);
        failure_over(r, t);
}

void track_well(struct reader *r, struct track *t)
{
        if (t->front_failures || t->save_failures)
                count(&r->failing, &t->failing, true);
        else
                track_answered(r, t);
}

void track_failing(struct reader *r, struct track *t, const struct error *err)
{
        say_failure(r, t, !err->retry, t->front_failures > 1 || t->save_failures > 1, err);
        count(&r->failing, &t->failing, true);
        count(&r->final, &t->final, !err->retry);
}

void reader_trouble(struct reader *r, const struct error *err)
{
        bool again = r->trouble.kind != ERROR_NONE;

        r->trouble.kind = ERROR_NONE;
        if (!err) {
                failure_over(r, &r->trouble);
                return;
        }
        r->trouble = *err;
        say_failure(r, &r->trouble, !err->retry, again, err);
}

static enum source_state state_now(const struct reader *r)
{
        if (r->final || (r->trouble.kind && !r->trouble.retry))
                return SOURCE_FAILED;
        if (r->failing || r->trouble.kind)
                return SOURCE_DISCONNECTED;
        if (r->open && r->reached)
                return SOURCE_CONNECTED;
        return r->stats.tracks && r->standby == r->stats.tracks ? SOURCE_STANDBY : SOURCE_CONNECTING;
}

static const char *state_text(const struct reader *r, enum source_state state)
{
        switch (state) {
        case SOURCE_FAILED:
        case SOURCE_DISCONNECTED: return r->text;
        case SOURCE_STANDBY: return r->standby_text;
        case SOURCE_CONNECTED: return r->connected_text;
        case SOURCE_CONNECTING: return r->stats.tracks ? "" : r->connecting_text; /* a track may connect */
        case SOURCE_IDLE:
        case SOURCE_REMOVED:
        case SOURCE_STATE_MAX: break;
        }
        return "";
}

bool reader_state_changed(const struct reader *r)
{
        enum source_state state = state_now(r);

        return state != r->told_state || strcmp(state_text(r, state), r->told_text) != 0;
}

void reader_say_state(struct reader *r, struct pull_event *e)
{
        enum source_state state = state_now(r);

        (void)snprintf(r->told_text, sizeof(r->told_text), "%s", state_text(r, state));
        r->told_state = state;
        *e = (struct pull_event){ .kind = PULL_STATE, .state = state, .text = r->told_text };
}

/* ---- what befalls it ---------------------------------------------------- */

/* Finds or adds the entry of that reason and track. NOTICES exceeds the number of reasons of any source; when
 * it is full, the track shares another entry of the same reason. */
static struct befallen *befallen(struct reader *r, const char *reason, uint32_t track)
{
        struct befallen *same = NULL;

        if (!r->befallen && !(r->befallen = calloc(NOTICES, sizeof(*r->befallen))))
                return NULL; /* out of memory: the warning is dropped */
        for (uint32_t i = 0; i < r->befallen_n; i++) {
                struct befallen *at = &r->befallen[i];

                if (!string_equal(at->reason, reason))
                        continue;
                if (at->track == track)
                        return at;
                same = at;
        }
        if (r->befallen_n == NOTICES)
                return same;
        same = &r->befallen[r->befallen_n++];
        *same = (struct befallen){ .reason = reason, .track = track };
        return same;
}

PRINTF(4, 0)
static void befall(struct befallen *at, uint64_t lost, uint64_t times, const char *format, va_list args)
{
        if (!at)
                return;
        at->lost += lost;
        if (at->times == 0)
                (void)vsnprintf(at->text, sizeof(at->text), format, args);
        at->times += times;
}

void reader_warn_of(struct reader *r, uint64_t times, const char *reason, const char *format, ...)
{
        va_list args;

        if (!times)
                return;
        va_start(args, format);
        befall(befallen(r, reason, 0), 0, times, format, args);
        va_end(args);
}

void reader_warn(struct reader *r, const char *reason, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        befall(befallen(r, reason, 0), 0, 1, format, args);
        va_end(args);
}

void reader_gone(struct reader *r, uint32_t track, uint64_t records, const char *reason, const char *format,
                 ...)
{
        va_list args;

        va_start(args, format);
        befall(befallen(r, reason, track), records, 1, format, args);
        va_end(args);
}

bool reader_warned(struct reader *r, struct notice *out)
{
        if (!r->befallen_n)
                return false;
        r->taken = r->befallen[0];
        memmove(r->befallen, r->befallen + 1, --r->befallen_n * sizeof(r->befallen[0]));
        *out = (struct notice){ .reason = r->taken.reason,
                                .text = r->taken.text,
                                .lost = r->taken.lost,
                                .times = r->taken.times };
        return true;
}

void reader_behind(struct reader *r, uint32_t track, int64_t records)
{
        struct track *t = reader_track(r, track);

        if (t)
                t->behind = records;
}

int64_t reader_lag(const struct reader *r)
{
        int64_t lag = 0;

        for (uint32_t i = 0; i < r->slots_n; i++) {
                const struct track *t = r->slots[i];

                if (!t || t->state == TRACK_CLAIM) /* another worker that reads it counts its lag */
                        continue;
                if (t->behind < 0)
                        return -1;
                lag += t->behind + (int64_t)(t->next - t->committed);
        }
        return lag;
}

int64_t reader_unsaved(const struct reader *r)
{
        int64_t n = -(int64_t)r->stats.out;

        for (uint32_t i = 0; i < r->slots_n; i++)
                if (r->slots[i])
                        n += (int64_t)(r->slots[i]->lent - r->slots[i]->saved);
        return n;
}

bool reader_drained(const struct reader *r) { return r->had_tracks && r->stats.tracks == 0; }

void reader_stats(const struct reader *r, struct reader_stats *out) { *out = r->stats; }
