#include "source/reader_inside.h"

/* ---- saving ------------------------------------------------------------- */

usec track_lease_end(const struct reader *r, const struct track *t)
{
        return r->config.lease && t->unsaved ? t->unsaved->page->since + r->config.lease : USEC_NEVER;
}

/* The position up to which everything can be saved. */
static uint64_t save_point(const struct track *t) { return all_done(t) ? t->next : t->reach; }

static bool save_wanted(const struct reader *r, const struct track *t)
{
        if (t->saving || t->lost || t->state < TRACK_OPEN || is_last(t))
                return false;
        return save_point(t) > t->saved || (t->fresh && all_done(t) && r->config.idle_save_interval);
}

usec track_save_when(const struct reader *r, const struct track *t)
{
        usec interval = save_point(t) > t->saved ? r->config.save_interval : r->config.idle_save_interval;

        if (t->state > TRACK_OPEN || !t->saved_at)
                interval = 0;
        return MAX_OF(t->save_at, t->saved_at + interval);
}

/* Collects the marks of all unsaved records below a position; false: out of memory. */
static bool collect_marks(const struct reader *r, struct track *t, uint64_t *to, size_t *n)
{
        size_t most = (size_t)MIN_OF(*to - t->saved, (uint64_t)r->config.marks_most);
        const struct lent *l = t->unsaved;

        if (most > t->marks_cap) {
                struct str *grown = realloc(t->marks, most * sizeof(*grown));

                if (!grown)
                        return false;
                t->marks = grown;
                t->marks_cap = most;
        }
        for (*n = 0; *n < most; l = l->next)
                t->marks[(*n)++] = l->mark;
        *to = t->saved + most;
        return true;
}

static bool save_prepare(struct reader *r, struct track *t, uint64_t *to, size_t *marks_n)
{
        struct str mark;

        *marks_n = 0;
        *to = save_point(t);
        if (r->config.marks_most && !collect_marks(r, t, to, marks_n))
                return false;
        mark = *to == t->next    ? text_of(&t->resume)
               : *to == t->reach ? t->reach_mark
               : *marks_n        ? t->marks[*marks_n - 1]
                                 : (struct str){ 0 };
        if (!put_text(&t->save_mark, mark))
                return false;
        if (!r->config.remember)
                return true;
        buf_reset(&t->save_state);
        t->save_state.max = READER_STATE_MOST + MARK_MOST;
        remember_write(&t->remember, text_of(&t->save_mark), *to, &t->save_state);
        return !t->save_state.failed;
}

bool track_save_in_time(const struct reader *r, const struct track *t, usec now)
{
        return save_wanted(r, t) && now < track_lease_end(r, t) && (!t->leave_by || now < t->leave_by);
}

bool track_save_next(struct reader *r, struct track *t, usec now, struct reader_job *job)
{
        uint64_t to;
        size_t marks_n;

        if (!track_save_in_time(r, t, now) || now < track_save_when(r, t))
                return false;
        if (!save_prepare(r, t, &to, &marks_n)) {
                t->save_at = now + STARVED;
                return false;
        }
        t->saving = true;
        t->saving_to = to;
        t->saving_fresh = t->fresh && to == t->next;
        t->fresh = t->fresh && !t->saving_fresh;
        t->saved_at = now;
        *job = (struct reader_job){ .kind = READER_SAVE,
                                    .mark = text_of(&t->save_mark),
                                    .state = text_of(r->config.remember ? &t->save_state : &t->save_mark),
                                    .marks = t->marks,
                                    .marks_n = marks_n,
                                    .give_up_at = MIN_OF(track_lease_end(r, t),
                                                         t->leave_by ? t->leave_by : USEC_NEVER) };
        return true;
}

void track_free_pages(struct track *t)
{
        while (t->pages && t->pages->position + t->pages->n <= t->saved && !t->pages->out) {
                struct page *p = t->pages;

                t->pages = p->next;
                if (!t->pages)
                        t->pages_last = NULL;
                (void)page_free(p);
        }
}

void track_save_done(struct reader *r, struct track *t)
{
        struct buf last = t->kept;

        t->kept = t->save_mark;
        t->save_mark = last;
        t->saved = t->saving_to;
        for (; t->unsaved && t->unsaved->record.position < t->saved; t->unsaved = t->unsaved->next)
                if (t->unsaved->seen)
                        remember_saved(&t->remember);
        track_free_pages(t);
        track_hold(r, t, t->saved < t->next);
        t->save_failures = 0;
        track_well(r, t);
}

/* ---- giving back what was not done -------------------------------------- */

bool track_may_leave(const struct reader *r, const struct track *t, usec now)
{
        return t->state == TRACK_LEAVING && !t->busy && !t->saving && !track_save_in_time(r, t, now);
}

bool track_return_wanted(const struct reader *r, const struct track *t, usec now)
{
        return r->config.returns && !t->returned && !t->lost && t->unsaved && now < track_lease_end(r, t) &&
               (!t->leave_by || now < t->leave_by);
}

bool track_return_next(struct reader *r, struct track *t, usec now, struct reader_job *job)
{
        uint64_t to = t->next;
        size_t n;

        if (!track_may_leave(r, t, now) || !track_return_wanted(r, t, now))
                return false;
        t->returned = true;
        if (!collect_marks(r, t, &to, &n)) /* out of memory: they come back when the lease ends */
                return false;
        t->front = READER_RETURN;
        t->busy = true;
        *job = (struct reader_job){ .kind = READER_RETURN,
                                    .marks = t->marks,
                                    .marks_n = n,
                                    .give_up_at = MIN_OF(track_lease_end(r, t),
                                                         t->leave_by ? t->leave_by : USEC_NEVER) };
        return true;
}
