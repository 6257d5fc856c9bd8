#include "http/server/inside.h"

/* Where connections or memory run short those give way who are quiet, not those who come: of connections the
 * one heard of longest ago, of memory what the peer that holds most has begun and not finished. A few of the
 * oldest are looked at each time, so that it costs the same however many there are. */
enum { LOOKED_AT = 32 };
/* within one peer: a request that has not moved for so long gives way to a new one */
static const usec STALLED = USEC_SEC;

static void unlink_quiet(struct http_call *c)
{
        struct quiet_list *l = &c->server->quiet[c->quiet];

        *(c->quieter ? &c->quieter->louder : &l->first) = c->louder;
        *(c->louder ? &c->louder->quieter : &l->last) = c->quieter;
        c->quieter = c->louder = NULL;
        c->quiet = NOT_QUIET;
}

static void link_quiet(struct http_call *c, uint8_t list)
{
        struct quiet_list *l = &c->server->quiet[list];

        c->quiet = list;
        c->heard = loop_now(c->server->loop);
        c->louder = NULL;
        c->quieter = l->last;
        *(l->last ? &l->last->louder : &l->first) = c;
        l->last = c;
}

void room_follow(struct http_call *c)
{
        if (c->quiet != NOT_QUIET)
                unlink_quiet(c);
        if (c->surplus)
                return;
        switch (c->phase) {
        case PHASE_HANDSHAKE:
        case PHASE_IDLE:
        case PHASE_LINGERING: link_quiet(c, QUIET_IDLE); break;
        case PHASE_HEAD:
        case PHASE_BODY: link_quiet(c, QUIET_UNFINISHED); break;
        case PHASE_HANDLING:
        case PHASE_ANSWERING: break;
        }
}

void room_heard(struct http_call *c)
{
        usec taken = loop_now(c->server->loop) - c->since;

        if (c->phase != PHASE_BODY || c->quiet == NOT_QUIET ||
            c->moved / c->server->config.body_rate < (size_t)(taken / USEC_SEC))
                return;
        unlink_quiet(c);
        link_quiet(c, QUIET_UNFINISHED);
}

/* ---- what each peer holds ----------------------------------------------- */

void room_join(struct http_call *c)
{
        struct http_server *s = c->server;
        uint8_t peer[16];
        struct share *share;

        memcpy(peer, c->peer, sizeof(peer));
        if (!IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)peer))
                memset(peer + 8, 0, 8);
        HASH_FIND(hh, s->shares, peer, sizeof(peer), share);
        if (!share) {
                share = calloc(1, sizeof(*share));
                if (!share)
                        return;
                memcpy(share->peer, peer, sizeof(peer));
                HASH_ADD(hh, s->shares, peer, sizeof(share->peer), share);
                if (!share->hh.tbl) {
                        free(share);
                        return;
                }
        }
        share->calls++;
        c->share = share;
}

void room_leave(struct http_call *c)
{
        if (c->quiet != NOT_QUIET)
                unlink_quiet(c);
        if (!c->share || --c->share->calls)
                return;
        HASH_DEL(c->server->shares, c->share);
        free(c->share);
}

void room_count(struct http_call *c, size_t before, size_t after)
{
        c->server->stats.buffered += after - before;
        if (c->share)
                c->share->bytes += after - before;
}

static size_t share_of(const struct http_call *c) { return c->share ? c->share->bytes : 0; }

/* ---- giving way --------------------------------------------------------- */

/* The longest-quiet one of the list that has nothing in its socket, and has not yielded its turn: what a
 * client has sent is not thrown away unread. */
static struct http_call *quietest(const struct quiet_list *l)
{
        int looked = 0;

        for (struct http_call *c = l->first; c && looked < LOOKED_AT; c = c->louder, looked++)
                if (!c->in_loop && !c->yields && !call_has_input(c))
                        return c;
        return NULL;
}

bool room_for_connection(struct http_server *s)
{
        struct http_call *idle = quietest(&s->quiet[QUIET_IDLE]),
                         *unfinished = quietest(&s->quiet[QUIET_UNFINISHED]);
        struct http_call *c = !idle || (unfinished && unfinished->heard < idle->heard) ? unfinished : idle;

        if (!c)
                return false;
        s->stats.refused[HTTP_OVERLOADED]++;
        call_close(c);
        return true;
}

bool room_may_come(const struct http_server *s)
{
        return s->quiet[QUIET_IDLE].first && !quietest(&s->quiet[QUIET_IDLE]) &&
               !quietest(&s->quiet[QUIET_UNFINISHED]);
}

/* Of the oldest unfinished requests the one whose peer holds most. */
static struct http_call *heaviest(const struct http_server *s, const struct http_call *but)
{
        struct http_call *found = NULL;
        int looked = 0;

        for (struct http_call *c = s->quiet[QUIET_UNFINISHED].first; c && looked < LOOKED_AT;
             c = c->louder, looked++)
                if (c != but && !c->in_loop && c->work && !c->closing &&
                    (!found || share_of(c) > share_of(found)))
                        found = c;
        return found;
}

bool room_for_bytes(struct http_call *c, size_t most)
{
        struct http_server *s = c->server;
        usec now = loop_now(s->loop);

        while (s->stats.buffered > most) {
                struct http_call *other = heaviest(s, c);

                if (!other || (other->share == c->share ? now - other->heard < STALLED
                                                        : share_of(other) <= share_of(c)))
                        return false;
                call_refuse(other, HTTP_OVERLOADED,
                            "too many bytes wait in memory, and this request makes no progress");
        }
        return true;
}
