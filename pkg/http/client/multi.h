/* A curl multi handle on our loop: sockets, time-outs and finished transfers. Owned by its user; loop's
 * thread. A socket that can't be watched fails its transfer alone; a multi handle that has failed as a whole
 * ends the process, since curl never recovers it. */
#pragma once

#include <curl/curl.h>

#include "base/loop.h"

struct http_multi;

/* done is called for each finished transfer, from the loop, never from within a call of the user's. */
int http_multi_new(struct http_multi **, struct loop *, void (*done)(void *cookie, CURL *easy, CURLcode),
                   void *cookie, struct error *) MUST_CHECK;
struct http_multi *http_multi_free(struct http_multi *); /* after its easy handles; NULL is fine */
int http_multi_add(struct http_multi *, CURL *easy, struct error *) MUST_CHECK;
void http_multi_remove(struct http_multi *, CURL *easy);
CURLM *http_multi_handle(struct http_multi *);
