// uWebSockets, with OpenSSL and zlib. Serves /echo and /fan; see src/lib.rs.
// uws PORT [--deflate] [--tls-cert FILE --tls-key FILE]

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "App.h"

struct Options {
    int port = 0;
    bool deflate = false;
    const char *cert = nullptr;
    const char *key = nullptr;
};

struct Nothing {};

template <bool SSL>
void serve(uWS::TemplatedApp<SSL> &&app, const Options &options) {
    using Behavior = typename uWS::TemplatedApp<SSL>::template WebSocketBehavior<Nothing>;
    const bool deflate = options.deflate;
    Behavior echo;
    echo.compression = deflate ? uWS::SHARED_COMPRESSOR : uWS::DISABLED;
    echo.maxPayloadLength = 64u << 20;
    echo.maxBackpressure = 64u << 20;
    echo.idleTimeout = 120;
    Behavior fan;
    fan.compression = echo.compression;
    fan.maxPayloadLength = echo.maxPayloadLength;
    fan.maxBackpressure = echo.maxBackpressure;
    fan.idleTimeout = echo.idleTimeout;
    echo.message = [deflate](auto *ws, std::string_view message, uWS::OpCode code) {
        ws->send(message, code, deflate);
    };
    fan.open = [](auto *ws) { ws->subscribe("fan"); };
    fan.message = [deflate](auto *ws, std::string_view message, uWS::OpCode code) {
        ws->publish("fan", message, code, deflate);
    };
    app.template ws<Nothing>("/echo", std::move(echo))
        .template ws<Nothing>("/fan", std::move(fan))
        .listen("127.0.0.1", options.port, [](auto *socket) {
            if (!socket) {
                std::fprintf(stderr, "cannot listen\n");
                std::exit(1);
            }
            std::printf("listening on 127.0.0.1:%d\n",
                        us_socket_local_port(SSL, reinterpret_cast<us_socket_t *>(socket)));
            std::fflush(stdout);
        })
        .run();
}

int main(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        if (!std::strcmp(argv[i], "--deflate")) {
            options.deflate = true;
        } else if (!std::strcmp(argv[i], "--tls-cert") && i + 1 < argc) {
            options.cert = argv[++i];
        } else if (!std::strcmp(argv[i], "--tls-key") && i + 1 < argc) {
            options.key = argv[++i];
        } else {
            options.port = std::atoi(argv[i]);
        }
    }
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (options.cert && options.key) {
        // Halves the memory of an idle TLS connection.
        serve(uWS::SSLApp({.key_file_name = options.key,
                           .cert_file_name = options.cert,
                           .ssl_prefer_low_memory_usage = 1}),
              options);
    } else {
        serve(uWS::App(), options);
    }
}
