/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensora-tool: looks at models, says what a clip will take, times and runs the engine.
 */
#include "tool.h"

#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_CANCELLED = 130 };

static const struct {
  const char *name;
  ToolCommand run;
  const char *summary;
} commands[] = {
  { "info", tool_info, "what a model folder holds" },
  { "plan", tool_plan, "memory and FLOPs that a clip will take" },
  { "generate", tool_generate, "a prompt to raw frames" },
  { "bench", tool_bench, "times every stage from prompt to frames" },
  { "parts", tool_parts, "times one model on random weights" },
  { "run", tool_run, "one component on tensors from a file" },
  { "noise", tool_noise, "the noise of a seed to a file" },
};

static void
print_usage(FILE *out)
{
  fprintf(out, "Usage:\n  opensora-tool COMMAND [OPTION...]\n\nCommands:\n");
  for (guint i = 0; i < G_N_ELEMENTS(commands); i++)
    fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf(out, "\n  --help     this, or after a command its options\n"
               "  --version  prints the version\n\n"
               "Without a folder the installed tiny model is used, or OPENSORA_MODEL.\n");
}

gboolean
tool_parse(int argc, char **argv, const char *parameters, const char *summary,
           const char *description, const GOptionEntry *entries, GOptionGroup *group, char **rest,
           GError **error)
{
  g_autoptr(GOptionContext) context = g_option_context_new(parameters);

  g_option_context_set_summary(context, summary);
  if (description)
    g_option_context_set_description(context, description);
  if (entries)
    g_option_context_add_main_entries(context, entries, NULL);
  if (group)
    g_option_context_add_group(context, group);
  if (!g_option_context_parse(context, &argc, &argv, error))
    return FALSE;
  if (rest)
    *rest = argc > 1 ? argv[1] : NULL;
  if (argc > (rest ? 2 : 1)) {
    tool_usage_error(error, "unexpected argument '%s'", argv[rest ? 2 : 1]);
    return FALSE;
  }
  return TRUE;
}

void
tool_usage_error(GError **error, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start(args, format);
  message = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error_literal(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, message);
}

char *
tool_format_bytes(guint64 bytes)
{
  const char *units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
  double value = (double) bytes;
  guint i = 0;

  while (value >= 1024 && i + 1 < G_N_ELEMENTS(units)) {
    value /= 1024;
    i++;
  }
  return g_strdup_printf(i == 0 ? "%.0f %s" : "%.1f %s", value, units[i]);
}

/* Waits for signals, which are blocked everywhere else, where locks may be taken. The first
 * cancels and leaves time to clean up, the second does not. */
static gpointer
watch_signals(gpointer data)
{
  GCancellable *cancellable = data;
  sigset_t set;
  int number;

  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  while (sigwait(&set, &number) == 0) {
    if (g_cancellable_is_cancelled(cancellable))
      _exit(EXIT_CANCELLED);
    g_cancellable_cancel(cancellable);
  }
  return NULL;
}

static void
cancel_on_signals(GCancellable *cancellable)
{
  sigset_t set;

  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  g_thread_unref(g_thread_new("signals", watch_signals, cancellable));
}

static int
report(const char *command, const GError *error)
{
  if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED)) {
    fprintf(stderr, "opensora-tool: interrupted\n");
    return EXIT_CANCELLED;
  }
  if (error->domain == G_OPTION_ERROR) {
    fprintf(stderr, "opensora-tool %s: %s (see opensora-tool %s --help)\n", command, error->message,
            command);
    return EXIT_USAGE;
  }
  fprintf(stderr, "opensora-tool %s: %s\n", command, error->message);
  return EXIT_FAILURE;
}

static int
run_command(guint i, int argc, char **argv)
{
  g_autofree char *name = g_strconcat("opensora-tool ", commands[i].name, NULL);
  /* Leaked on purpose: the thread that watches signals may hold it until the end. */
  GCancellable *cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;

  g_set_prgname(name);
  cancel_on_signals(cancellable);
  if (!commands[i].run(argc, argv, cancellable, &error))
    return report(commands[i].name, error);
  if (fflush(stdout) != 0) {
    fprintf(stderr, "opensora-tool: cannot write to standard output: %s\n", g_strerror(errno));
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

int
main(int argc, char **argv)
{
  setlocale(LC_CTYPE, "");
  if (argc < 2) {
    print_usage(stderr);
    return EXIT_USAGE;
  }
  if (g_str_equal(argv[1], "--help") || g_str_equal(argv[1], "-h")) {
    print_usage(stdout);
    return EXIT_SUCCESS;
  }
  if (g_str_equal(argv[1], "--version")) {
    printf("opensora-tool %s\n", VERSION);
    return EXIT_SUCCESS;
  }
  for (guint i = 0; i < G_N_ELEMENTS(commands); i++)
    if (g_str_equal(argv[1], commands[i].name))
      return run_command(i, argc - 1, argv + 1);
  fprintf(stderr, "opensora-tool: no command '%s' (see opensora-tool --help)\n", argv[1]);
  return EXIT_USAGE;
}
