#include "base/random.h"

#include <stdatomic.h>
#include <sys/random.h>
#include <time.h>

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* splitmix64, the generator's authors' way to fill the state. */
void random_init(struct random *r, uint64_t seed)
{
        for (size_t i = 0; i < 4; i++) {
                uint64_t z = (seed += 0x9e3779b97f4a7c15u);

                z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
                z = (z ^ z >> 27) * 0x94d049bb133111ebu;
                r->s[i] = z ^ z >> 31;
        }
}

uint64_t random_next(struct random *r)
{
        uint64_t result = rotate(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

        r->s[2] ^= r->s[0];
        r->s[3] ^= r->s[1];
        r->s[1] ^= r->s[2];
        r->s[0] ^= r->s[3];
        r->s[2] ^= t;
        r->s[3] = rotate(r->s[3], 45);
        return result;
}

uint64_t random_below(struct random *r, uint64_t bound)
{
        return bound ? (uint64_t)((unsigned __int128)random_next(r) * bound >> 64) : 0;
}

uint64_t random_seed(void)
{
        uint64_t seed;
        struct timespec t;

        if (getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
                return seed;
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_nsec ^ (uint64_t)t.tv_sec << 30;
}

uint64_t table_seed(void)
{
        static _Atomic uint64_t seed;
        uint64_t none = 0;

        if (!seed)
                (void)atomic_compare_exchange_strong(&seed, &none, random_seed() | 1);
        return seed;
}

#define SIP_ROUND                                                                                            \
        do {                                                                                                 \
                v0 += v1;                                                                                    \
                v1 = rotate(v1, 13) ^ v0;                                                                    \
                v0 = rotate(v0, 32);                                                                         \
                v2 += v3;                                                                                    \
                v3 = rotate(v3, 16) ^ v2;                                                                    \
                v0 += v3;                                                                                    \
                v3 = rotate(v3, 21) ^ v0;                                                                    \
                v2 += v1;                                                                                    \
                v1 = rotate(v1, 17) ^ v2;                                                                    \
                v2 = rotate(v2, 32);                                                                         \
        } while (0)

uint64_t hash_bytes(uint64_t seed, struct str s)
{
        uint64_t k0 = seed, k1 = ~seed;
        uint64_t v0 = k0 ^ 0x736f6d6570736575u, v1 = k1 ^ 0x646f72616e646f6du, v2 = k0 ^ 0x6c7967656e657261u,
                 v3 = k1 ^ 0x7465646279746573u;
        uint64_t word;
        size_t i = 0;

        for (; i + 8 <= s.n; i += 8) {
                memcpy(&word, s.p + i, 8);
                v3 ^= word;
                SIP_ROUND;
                v0 ^= word;
        }
        word = (uint64_t)s.n << 56;
        for (size_t j = 0; i + j < s.n; j++)
                word |= (uint64_t)(unsigned char)s.p[i + j] << (8 * j);
        v3 ^= word;
        SIP_ROUND;
        v0 ^= word;
        v2 ^= 0xff;
        SIP_ROUND;
        SIP_ROUND;
        SIP_ROUND;
        return v0 ^ v1 ^ v2 ^ v3;
}
