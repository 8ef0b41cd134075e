/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-main.c: runs a fuzz target where there is no libFuzzer: every file of the folders
 * named on the command line, then a fixed number of mutations of them. Each run does the
 * same, so that it can be an ordinary test.
 *
 *   fuzz-NAME [-runs=N] [-seed=N] FILE-OR-FOLDER...
 *
 * An input that crashes stays behind as crash-NAME in the working folder.
 */
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define MAX_SIZE (64 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static GByteArray *current;
static char crash_path[256];

/* Only what a signal handler may call. */
static void
save_crash(int number)
{
  int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

  if (fd >= 0 && write(fd, current->data, current->len) == (ssize_t) current->len)
    close(fd);
  signal(number, SIG_DFL);
  raise(number);
}

/* A sanitizer that is there already says more than we could. */
static void
catch_signal(int number)
{
  void (*before)(int) = signal(number, save_crash);

  if (before != SIG_DFL)
    signal(number, before);
}

static void
run_one(const GByteArray *input)
{
  /* A copy of exactly that size: a read past it is a heap overflow that sanitizers see. */
  g_autofree uint8_t *copy = g_memdup2(input->data, input->len);

  LLVMFuzzerTestOneInput(copy ? copy : (const uint8_t *) "", input->len);
}

static void
add_file(GPtrArray *corpus, const char *path)
{
  g_autoptr(GError) error = NULL;
  char *data;
  gsize size;

  if (!g_file_get_contents(path, &data, &size, &error))
    g_error("%s", error->message);
  g_ptr_array_add(corpus, g_byte_array_new_take((guint8 *) data, size));
}

static int
compare_names(gconstpointer a, gconstpointer b)
{
  return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Folders list their files in any order, the mutations depend on it. */
static void
add_path(GPtrArray *corpus, const char *path)
{
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GDir) dir = NULL;
  g_autoptr(GError) error = NULL;
  const char *name;

  if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
    add_file(corpus, path);
    return;
  }
  dir = g_dir_open(path, 0, &error);
  if (!dir)
    g_error("%s", error->message);
  while ((name = g_dir_read_name(dir)))
    g_ptr_array_add(names, g_build_filename(path, name, NULL));
  g_ptr_array_sort(names, compare_names);
  for (guint i = 0; i < names->len; i++)
    add_file(corpus, g_ptr_array_index(names, i));
}

static guint
below(GRand *rand, guint end)
{
  return end > 0 ? g_rand_int(rand) % end : 0;
}

static void
insert(GByteArray *bytes, guint at, const guint8 *data, guint size)
{
  guint tail = bytes->len - at;

  if (bytes->len + size > MAX_SIZE)
    return;
  g_byte_array_set_size(bytes, bytes->len + size);
  memmove(bytes->data + at + size, bytes->data + at, tail);
  memcpy(bytes->data + at, data, size);
}

/* A piece of @other, or of @bytes itself, into @bytes. */
static void
insert_piece(GRand *rand, GByteArray *bytes, const GByteArray *other)
{
  guint from = below(rand, other->len), size = below(rand, MIN(other->len - from, 64) + 1);
  g_autofree guint8 *piece = g_memdup2(other->data + from, size);

  if (piece)
    insert(bytes, below(rand, bytes->len + 1), piece, size);
}

static void
mutate(GRand *rand, GByteArray *bytes, const GByteArray *other)
{
  static const guint8 interesting[] = { 0,   1,   9,   ' ', '"', '\\', '{', '}',  '[',  ']', ',',
                                        ':', '-', '.', '0', '9', 'e',  127, 0x80, 0xc0, 0xff };
  guint at = below(rand, bytes->len), size;

  switch (below(rand, bytes->len > 0 ? 8 : 1)) {
  case 0:
    insert(bytes, at, &interesting[below(rand, G_N_ELEMENTS(interesting))], 1);
    break;
  case 1:
    bytes->data[at] ^= (guint8) (1 << below(rand, 8));
    break;
  case 2:
    bytes->data[at] = interesting[below(rand, G_N_ELEMENTS(interesting))];
    break;
  case 3:
    bytes->data[at] = (guint8) g_rand_int(rand);
    break;
  case 4:
    size = 1 + below(rand, 16);
    g_byte_array_remove_range(bytes, at, MIN(size, bytes->len - at));
    break;
  case 5:
    g_byte_array_set_size(bytes, at);
    break;
  case 6:
    insert_piece(rand, bytes, bytes);
    break;
  default:
    insert_piece(rand, bytes, other);
    break;
  }
}

static void
run_mutations(GPtrArray *corpus, guint runs, guint32 seed)
{
  g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

  for (guint i = 0; i < runs; i++) {
    const GByteArray *start = g_ptr_array_index(corpus, below(rand, corpus->len));
    const GByteArray *other = g_ptr_array_index(corpus, below(rand, corpus->len));

    g_byte_array_set_size(current, 0);
    if (start->len > 0)
      g_byte_array_append(current, start->data, MIN(start->len, MAX_SIZE));
    for (guint n = 1 + below(rand, 8); n > 0; n--)
      mutate(rand, current, other);
    run_one(current);
  }
}

int
main(int argc, char **argv)
{
  g_autoptr(GPtrArray) corpus = g_ptr_array_new_with_free_func((GDestroyNotify) g_byte_array_unref);
  g_autofree char *name = g_path_get_basename(argv[0]);
  guint64 runs = 10000, seed = 1;

  for (int i = 1; i < argc; i++) {
    if (g_str_has_prefix(argv[i], "-runs="))
      runs = g_ascii_strtoull(argv[i] + 6, NULL, 10);
    else if (g_str_has_prefix(argv[i], "-seed="))
      seed = g_ascii_strtoull(argv[i] + 6, NULL, 10);
    else
      add_path(corpus, argv[i]);
  }
  if (corpus->len == 0)
    g_error("usage: %s [-runs=N] [-seed=N] FILE-OR-FOLDER...", name);

  g_snprintf(crash_path, sizeof crash_path, "crash-%s", name);
  current = g_byte_array_new();
  catch_signal(SIGSEGV);
  catch_signal(SIGBUS);
  catch_signal(SIGABRT);
  catch_signal(SIGTRAP);
  for (guint i = 0; i < corpus->len; i++) {
    const GByteArray *file = g_ptr_array_index(corpus, i);

    g_byte_array_set_size(current, 0);
    if (file->len > 0)
      g_byte_array_append(current, file->data, file->len);
    run_one(current);
  }
  run_mutations(corpus, (guint) runs, (guint32) seed);
  g_print("%s: %u files and %u mutations, no crash\n", name, corpus->len, (guint) runs);
  g_byte_array_unref(current);
  return 0;
}
