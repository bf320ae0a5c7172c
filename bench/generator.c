/* The load generator of the benches: keep-alive connections, each with one request on its way.
 *
 *     generator load PORT CONNECTIONS WARM_SECONDS SECONDS USERS ITEMS USER_AT ACTION_AT STRIDE FIRST_BYTES
 *                    NUMBERS STEP < bytes
 *     generator respond BODY_BYTES
 *
 * `load` reads two requests from standard input. The first FIRST_BYTES are a request that each connection sends once,
 * before the measurement. The rest is the request that it sends again and again. That request holds ITEMS items,
 * STRIDE bytes apart: the digits of a user from USER_AT on, the digits of an action from ACTION_AT on. `load` writes
 * new digits each time: each action's number is STEP more than the one before, modulo NUMBERS. So every action is a new
 * one, until all numbers were sent. It changes nothing else of a request, and allocates nothing.
 *
 * `load` reads only the status and the length of an answer. An answer counts if it arrives in the SECONDS after
 * WARM_SECONDS; then `load` waits for the last answers and prints the result as one line of JSON. A connection that
 * ends, or WAIT_MS without any answer, ends the run with a message and exit code 1: half a figure is none.
 *
 * `respond` is a server that answers everything with 200 and a body of BODY_BYTES. It prints its port, and ends when
 * its standard input ends. Against it the bench measures what the generator can do, and what it costs.
 *
 * bench/generator.py does the same in Python, with the same arguments and results, where there is no C compiler.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    HEAD_BYTES_MAX = 16384,
    RECEIVE_BYTES = 1 << 18,
    REQUEST_BYTES_MAX = 1 << 20,
    USER_DIGITS = 7,
    ACTION_DIGITS = 9,
    EVENTS_MAX = 256,
    WAIT_MS = 30000,
};

typedef struct {
    int socket;
    uint64_t sent_ns;
    size_t head_bytes;   /* of an answer whose head is not whole yet */
    size_t body_left;    /* of an answer whose head is whole */
    int status;          /* 0 until the head is whole */
    char head[HEAD_BYTES_MAX];
} Connection;

typedef struct {
    char *bytes;
    size_t length;
    unsigned long users, items, user_at, action_at, stride, numbers, step, number;
} Request;

static Connection connections[CONNECTIONS_MAX];
static char received[RECEIVE_BYTES];

static void fail(const char *what) {
    fprintf(stderr, "generator: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void write_digits(char *at, int count, unsigned long value) {
    for (int place = count - 1; place >= 0; place--, value /= 10)
        at[place] = (char)('0' + value % 10);
}

/* Sends everything, and blocks if the socket's buffer is full, which happens only with large batches. */
static void send_all(int socket, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = send(socket, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            fail("send");
        bytes += sent;
        length -= (size_t)sent;
    }
}

static void send_next(Connection *connection, Request *request) {
    char *item = request->bytes;
    for (unsigned long count = 0; count < request->items; count++, item += request->stride) {
        request->number = (request->number + request->step) % request->numbers;
        write_digits(item + request->user_at, USER_DIGITS, request->number * 7919 % request->users);
        write_digits(item + request->action_at, ACTION_DIGITS, request->number);
    }
    connection->sent_ns = clock_ns(CLOCK_MONOTONIC);
    send_all(connection->socket, request->bytes, request->length);
}

static size_t length_of(const char *head) {
    const char *at = strcasestr(head, "\r\ncontent-length:");
    return at ? strtoul(at + 17, NULL, 10) : 0;
}

/* Takes in a part of an answer; gives the status when the answer is whole, and 0 before. */
static int take(Connection *connection, const char *bytes, size_t count) {
    if (connection->status == 0) {
        if (connection->head_bytes + 1 >= HEAD_BYTES_MAX)
            fail("an answer has too long a head");
        size_t room = HEAD_BYTES_MAX - 1 - connection->head_bytes;
        size_t copied = count < room ? count : room, had = connection->head_bytes;
        memcpy(connection->head + had, bytes, copied);
        connection->head[had + copied] = 0;
        char *end = strstr(connection->head, "\r\n\r\n");
        if (end == NULL) {
            connection->head_bytes += copied;
            return 0;
        }
        end[2] = 0;
        connection->status = atoi(connection->head + 9);
        connection->body_left = length_of(connection->head);
        count -= (size_t)(end + 4 - connection->head) - had;
        connection->head_bytes = 0;
    }
    if (count > connection->body_left)
        fail("more came than one answer");
    connection->body_left -= count;
    if (connection->body_left > 0)
        return 0;
    int status = connection->status;
    connection->status = 0;
    return status;
}

static int receive(Connection *connection) {
    ssize_t count = recv(connection->socket, received, sizeof received, 0);
    if (count <= 0)
        fail("the server closed a connection");
    return take(connection, received, (size_t)count);
}

static void open_connection(Connection *connection, int port, const char *first, size_t first_bytes) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection->socket, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (first_bytes == 0)
        return;
    send_all(connection->socket, first, first_bytes);
    int status;
    while ((status = receive(connection)) == 0)
        ;
    if (status != 200)
        fail("the first request of a connection was refused");
}

static char *read_input(size_t *length) {
    char *bytes = malloc(REQUEST_BYTES_MAX);
    *length = fread(bytes, 1, REQUEST_BYTES_MAX, stdin);
    if (*length == REQUEST_BYTES_MAX)
        fail("the request is too long");
    return bytes;
}

static int by_size(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

typedef struct {
    uint32_t *waits_us10; /* in tenths of a microsecond */
    size_t count, room;
    unsigned long errors, all;
} Seen;

static void note(Seen *seen, int status, uint64_t wait_ns) {
    if (status != 200 && status != 304) {
        seen->errors++;
        return;
    }
    if (seen->count == seen->room) {
        seen->room = seen->room ? 2 * seen->room : 65536;
        seen->waits_us10 = realloc(seen->waits_us10, seen->room * sizeof *seen->waits_us10);
        if (seen->waits_us10 == NULL)
            fail("no memory");
    }
    seen->waits_us10[seen->count++] = (uint32_t)(wait_ns / 100);
}

static void tell(Seen *seen, double seconds, double busy) {
    double p50 = 0, p99 = 0;
    if (seen->count) {
        qsort(seen->waits_us10, seen->count, sizeof *seen->waits_us10, by_size);
        p50 = seen->waits_us10[seen->count / 2] / 1e4;
        p99 = seen->waits_us10[seen->count * 99 / 100] / 1e4;
    }
    printf("{\"generator\": \"C\", \"answers\": %zu, \"answers_all\": %lu, \"errors\": %lu, \"seconds\": %.6f, "
           "\"ms_p50\": %.4f, \"ms_p99\": %.4f, \"cpu_share\": %.4f}\n",
           seen->count, seen->all, seen->errors, seconds, p50, p99, busy / seconds);
}

static void run_load(int count, double warm_seconds, double seconds, Request *request) {
    int poll = epoll_create1(0);
    struct epoll_event events[EVENTS_MAX];
    for (int each = 0; each < count; each++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[each]};
        epoll_ctl(poll, EPOLL_CTL_ADD, connections[each].socket, &event);
    }
    uint64_t begin = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(warm_seconds * 1e9);
    uint64_t end = begin + (uint64_t)(seconds * 1e9), busy_begin = 0, busy_end = 0;
    Seen seen = {0};
    for (int each = 0; each < count; each++)
        send_next(&connections[each], request);
    for (int waiting = count; waiting > 0;) {
        int ready = epoll_wait(poll, events, EVENTS_MAX, WAIT_MS);
        if (ready == 0)
            fail("no answer came for a long time");
        for (int each = 0; each < ready; each++) {
            Connection *connection = events[each].data.ptr;
            int status = receive(connection);
            if (status == 0)
                continue;
            uint64_t now = clock_ns(CLOCK_MONOTONIC);
            seen.all++;
            if (now >= begin && busy_begin == 0)
                busy_begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            if (now >= end && busy_end == 0)
                busy_end = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            if (now >= begin && now < end)
                note(&seen, status, now - connection->sent_ns);
            else
                seen.errors += status != 200 && status != 304;
            if (now < end)
                send_next(connection, request);
            else
                waiting--;
        }
    }
    tell(&seen, seconds, (double)(busy_end - busy_begin) / 1e9);
}

static void respond(int body_bytes) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, CONNECTIONS_MAX) < 0)
        fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    char *answer = malloc((size_t)body_bytes + 256);
    int head = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n",
                       body_bytes);
    memset(answer + head, ' ', (size_t)body_bytes);
    struct epoll_event events[EVENTS_MAX], event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = STDIN_FILENO;
    epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS_MAX, -1);
        for (int each = 0; each < ready; each++) {
            int from = events[each].data.fd;
            if (from == STDIN_FILENO)
                return;
            if (from == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
            } else if (recv(from, received, sizeof received, 0) <= 0) {
                close(from);
            } else {
                send_all(from, answer, (size_t)(head + body_bytes));
            }
        }
    }
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "respond") == 0) {
        respond(atoi(arguments[2]));
        return 0;
    }
    if (count != 14 || strcmp(arguments[1], "load") != 0)
        fail("what is to be done? See the head of generator.c");
    int port = atoi(arguments[2]), connected = atoi(arguments[3]);
    size_t length, first_bytes = strtoul(arguments[11], NULL, 10);
    char *input = read_input(&length);
    Request request = {.bytes = input + first_bytes, .length = length - first_bytes};
    request.users = strtoul(arguments[6], NULL, 10);
    request.items = strtoul(arguments[7], NULL, 10);
    request.user_at = strtoul(arguments[8], NULL, 10);
    request.action_at = strtoul(arguments[9], NULL, 10);
    request.stride = strtoul(arguments[10], NULL, 10);
    request.numbers = strtoul(arguments[12], NULL, 10);
    request.step = strtoul(arguments[13], NULL, 10);
    if (connected < 1 || connected > CONNECTIONS_MAX)
        fail("so many connections cannot be opened");
    for (int each = 0; each < connected; each++)
        open_connection(&connections[each], port, input, first_bytes);
    run_load(connected, strtod(arguments[4], NULL), strtod(arguments[5], NULL), &request);
    return 0;
}
