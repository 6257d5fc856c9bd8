/* The bench's function: accepts POSTs over keep-alive connections, answers 200 with an empty body, counts. As little work as there can be, so that the
 * sender's cost is what is seen. Usage: sink [PORT]; prints "port N", then at SIGTERM "requests N". It trusts its peer: not a server for anything else. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 4096, SIZE = 65536 };
static struct { char *p; size_t n; } in[MAX_FD];
static volatile sig_atomic_t ending;
static unsigned long requests;

static void on_term(int number) { ending = number; }

/* The size of the whole request at the start; 0: not all there yet. */
static size_t whole(const char *p, size_t n)
{
        const char *end = memmem(p, n, "\r\n\r\n", 4), *length;
        size_t head;

        if (!end)
                return 0;
        head = (size_t)(end - p) + 4;
        length = memmem(p, head, "Content-Length: ", 16);
        head += length ? strtoul(length + 16, NULL, 10) : 0;
        return head <= n ? head : 0;
}

static void serve(int fd)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        ssize_t got = recv(fd, in[fd].p + in[fd].n, SIZE - in[fd].n, 0);
        size_t used = 0, one;

        if (got <= 0) {
                if (got < 0 && errno == EAGAIN)
                        return;
                (void)close(fd);
                in[fd].n = 0;
                return;
        }
        in[fd].n += (size_t)got;
        while ((one = whole(in[fd].p + used, in[fd].n - used))) {
                used += one;
                requests++;
                if (send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0)
                        return;
        }
        memmove(in[fd].p, in[fd].p + used, in[fd].n - used);
        in[fd].n -= used;
}

int main(int argc, char **argv)
{
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)(argc > 1 ? atoi(argv[1]) : 0)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), on = 1;
        struct sigaction action = { .sa_handler = on_term };
        socklen_t size = sizeof(address);

        (void)sigaction(SIGTERM, &action, NULL);
        (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1024) < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0) {
                perror("sink");
                return 1;
        }
        (void)epoll_ctl(poll, EPOLL_CTL_ADD, listener, &(struct epoll_event){ .events = EPOLLIN, .data.fd = listener });
        (void)printf("port %d\n", ntohs(address.sin_port));
        (void)fflush(stdout);
        while (!ending) {
                struct epoll_event events[256];
                int n = epoll_wait(poll, events, 256, -1);

                for (int i = 0; i < n; i++) {
                        int fd = events[i].data.fd, client;

                        if (fd != listener) {
                                serve(fd);
                                continue;
                        }
                        while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                                if (client >= MAX_FD || (!in[client].p && !(in[client].p = malloc(SIZE)))) {
                                        (void)close(client);
                                        continue;
                                }
                                in[client].n = 0;
                                (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                                (void)epoll_ctl(poll, EPOLL_CTL_ADD, client, &(struct epoll_event){ .events = EPOLLIN, .data.fd = client });
                        }
                }
        }
        (void)printf("requests %lu\n", requests);
        return 0;
}
