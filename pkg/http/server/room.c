#include "http/server/inside.h"

/* When connections or memory run short, quiet connections give way to new ones: connections that have been
 * quiet for longest are closed, and the peer that holds most memory loses what it has begun and not finished.
 * A few of the oldest are looked at each time, so that the cost does not grow with their number. */
enum { LOOKED_AT = 32 };
/* within one peer: a request without progress for so long gives way to a new one */
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
        case PHASE_ANSWERING: link_quiet(c, QUIET_ANSWERING); break;
        case PHASE_HANDLING: break;
        }
}

void room_heard(struct http_call *c)
{
        const struct http_server_config *config = &c->server->config;
        usec taken = loop_now(c->server->loop) - c->since;
        size_t rate = c->phase == PHASE_BODY ? config->body_rate : config->write_rate;
        uint8_t list = c->quiet;

        if ((c->phase != PHASE_BODY && c->phase != PHASE_ANSWERING) || list == NOT_QUIET ||
            c->moved / rate < (size_t)(taken / USEC_SEC))
                return;
        unlink_quiet(c);
        link_quiet(c, list);
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

void room_session(struct http_call *c, size_t bytes)
{
        room_count(c, c->session, bytes);
        c->server->sessions += bytes - c->session;
        c->session = bytes;
}

static size_t share_of(const struct http_call *c) { return c->share ? c->share->bytes : 0; }

/* ---- giving way --------------------------------------------------------- */

/* A connection is not closed while its client's bytes lie unread in the socket, or it waits for its turn. The
 * exception is a client that does not read its answer: further requests may lie behind it for ever. */
static bool gives_way(const struct http_call *c)
{
        if (c->in_loop)
                return false;
        if (c->server->config.newcomers_first && (c->requests || c->phase == PHASE_LINGERING))
                return true;
        if (c->phase == PHASE_ANSWERING)
                return loop_now(c->server->loop) - c->heard >= STALLED;
        return !c->yields && !call_has_input(c);
}

/* Of all lists, the one that has been quiet for longest and may be closed. */
static struct http_call *quietest(const struct http_server *s)
{
        struct http_call *found = NULL;

        for (size_t i = 0; i < QUIET_LISTS; i++) {
                struct http_call *c = s->quiet[i].first;

                for (int looked = 0; c && looked < LOOKED_AT && !gives_way(c); looked++)
                        c = c->louder;
                if (c && gives_way(c) && (!found || c->heard < found->heard))
                        found = c;
        }
        return found;
}

/* Resets the connection of an answer that is cut off, so that its client does not take a part of it for the
 * whole. */
static void cut_off(struct http_call *c)
{
        c->broken = c->broken || c->phase == PHASE_ANSWERING;
        call_close(c);
}

bool room_for_connection(struct http_server *s)
{
        struct http_call *c = quietest(s);

        if (!c)
                return false;
        s->stats.refused[HTTP_OVERLOADED]++;
        cut_off(c);
        return true;
}

static bool is_short(const struct http_server *s)
{
        return s->calls_n >= s->config.max_connections ||
               (s->tls && s->stats.buffered + SHAKING_BYTES > s->config.buffered_max);
}

bool room_may_come(const struct http_server *s)
{
        return is_short(s) && s->quiet[QUIET_IDLE].first && !quietest(s);
}

/* One that is merely kept open, or shakes hands, holds memory with TLS alone. */
static bool close_session(struct http_server *s)
{
        struct http_call *c = s->tls ? s->quiet[QUIET_IDLE].first : NULL;

        for (int looked = 0; c && looked < LOOKED_AT && !gives_way(c); looked++)
                c = c->louder;
        if (!c || !gives_way(c))
                return false;
        call_close(c);
        return true;
}

bool room_for_session(struct http_server *s)
{
        while (s->stats.buffered + SHAKING_BYTES > s->config.buffered_max)
                if (!close_session(s))
                        return s->sessions + SHAKING_BYTES <= s->config.buffered_max / 4;
        return true;
}

/* Among the oldest unfinished requests and answers, the one whose peer holds most memory; then the oldest. */
static struct http_call *heaviest(const struct http_server *s, const struct http_call *but)
{
        static const uint8_t lists[] = { QUIET_UNFINISHED, QUIET_ANSWERING };
        struct http_call *found = NULL;

        for (size_t i = 0; i < COUNT_OF(lists); i++) {
                int looked = 0;

                for (struct http_call *c = s->quiet[lists[i]].first; c && looked < LOOKED_AT;
                     c = c->louder, looked++) {
                        bool heavier = !found || share_of(c) > share_of(found) ||
                                       (share_of(c) == share_of(found) && c->heard < found->heard);

                        if (heavier && c != but && !c->in_loop && c->work &&
                            (!c->closing || c->phase == PHASE_ANSWERING))
                                found = c;
                }
        }
        return found;
}

bool room_for_bytes(struct http_call *c, size_t most)
{
        struct http_server *s = c->server;
        usec now = loop_now(s->loop);

        while (s->stats.buffered > most) {
                struct http_call *other;

                if (close_session(s))
                        continue;
                other = heaviest(s, c);

                if (!other || (other->share == c->share ? now - other->heard < STALLED
                                                        : share_of(other) <= share_of(c)))
                        return false;
                if (other->phase == PHASE_ANSWERING) {
                        s->stats.refused[HTTP_OVERLOADED]++;
                        cut_off(other);
                        continue;
                }
                call_refuse(other, HTTP_OVERLOADED,
                            "too much memory is in use, and this request makes no progress");
        }
        return true;
}
