/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * zip.c: the directory of a zip archive.
 *
 *   members, each behind a local header; then
 *   central directory: a header a member, with its size and the place of its local header
 *   ZIP64 end record and its locator, where 16 or 32 bits do not hold what the end record says
 *   end record: number of members, place and size of the directory
 *
 * Archives come from anywhere: every place is checked against the end of what it is in.
 */
#include "zip-private.h"

#include <string.h>

#include "checkpoint-private.h"
#include "error.h"

#define LOCAL_SIGNATURE 0x04034b50
#define MEMBER_SIGNATURE 0x02014b50
#define END_SIGNATURE 0x06054b50
#define END64_SIGNATURE 0x06064b50
#define LOCATOR_SIGNATURE 0x07064b50

#define LOCAL_SIZE 30
#define MEMBER_SIZE 46
#define END_SIZE 22
#define END64_SIZE 56
#define LOCATOR_SIZE 20
#define EXTRA_ZIP64 1

#define FLAG_ENCRYPTED 1
#define METHOD_STORED 0
#define MAX_COMMENT 0xffff
#define MAX_MEMBERS (1 << 20)

typedef struct {
  const guint8 *data;
  gsize size;
  const char *name;
} Archive;

/* Where the central directory is. */
typedef struct {
  guint64 place, size, n_members;
} Directory;

static guint
get16(const guint8 *at)
{
  return at[0] | (guint) at[1] << 8;
}

static guint32
get32(const guint8 *at)
{
  return get16(at) | (guint32) get16(at + 2) << 16;
}

static guint64
get64(const guint8 *at)
{
  return get32(at) | (guint64) get32(at + 4) << 32;
}

static gboolean G_GNUC_PRINTF(3, 4)
    fail(const Archive *archive, GError **error, const char *format, ...)
{
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", archive->name, reason);
  return FALSE;
}

/* The end record is the last thing but a comment of its own. */
static const guint8 *
find_end(const Archive *archive)
{
  if (archive->size < END_SIZE)
    return NULL;
  for (gsize comment = 0; comment <= MIN(archive->size - END_SIZE, MAX_COMMENT); comment++) {
    const guint8 *at = archive->data + archive->size - END_SIZE - comment;

    if (get32(at) == END_SIGNATURE && get16(at + 20) == comment)
      return at;
  }
  return NULL;
}

/* What the ZIP64 end record says, if there is a locator of one before @end. */
static gboolean
read_end64(const Archive *archive, const guint8 *end, Directory *directory, GError **error)
{
  gsize before = (gsize) (end - archive->data);
  const guint8 *locator = end - LOCATOR_SIZE, *record;
  guint64 place;

  if (before < LOCATOR_SIZE || get32(locator) != LOCATOR_SIGNATURE)
    return TRUE;
  place = get64(locator + 8);
  if (before < LOCATOR_SIZE + END64_SIZE || place > before - LOCATOR_SIZE - END64_SIZE ||
      get32(archive->data + place) != END64_SIGNATURE)
    return fail(archive, error, "the ZIP64 end record is not where its locator says");
  record = archive->data + place;
  if (get32(record + 16) != 0 || get32(record + 20) != 0 || get32(locator + 4) != 0)
    return fail(archive, error, "a zip archive in several parts");
  *directory = (Directory){ get64(record + 48), get64(record + 40), get64(record + 32) };
  return TRUE;
}

static gboolean
find_directory(const Archive *archive, Directory *directory, GError **error)
{
  const guint8 *end = find_end(archive);

  if (!end)
    return fail(archive, error, "the zip archive has no end record (is it truncated?)");
  *directory = (Directory){ get32(end + 16), get32(end + 12), get16(end + 10) };
  if (!read_end64(archive, end, directory, error))
    return FALSE;
  if (get16(end + 4) != 0 || get16(end + 6) != 0)
    return fail(archive, error, "a zip archive in several parts");
  if (directory->size > (gsize) (end - archive->data) ||
      directory->place > (gsize) (end - archive->data) - directory->size)
    return fail(archive, error, "the zip directory leaves the file");
  if (directory->n_members > MAX_MEMBERS)
    return fail(archive, error, "%" G_GUINT64_FORMAT " members in a zip archive are too many",
                directory->n_members);
  return TRUE;
}

/* Where the 32 bits of a member's sizes and place are all ones, the ZIP64 extra field has 64
 * for each that is missing, in this order. */
static gboolean
read_extra(const guint8 *extra, gsize length, guint64 *const fields[3])
{
  while (length >= 4) {
    gsize size = get16(extra + 2);
    const guint8 *at = extra + 4, *end = at + size;

    if (size > length - 4)
      return FALSE;
    for (guint i = 0; get16(extra) == EXTRA_ZIP64 && i < 3; i++) {
      if (*fields[i] != G_MAXUINT32)
        continue;
      if (end - at < 8)
        return FALSE;
      *fields[i] = get64(at);
      at += 8;
    }
    extra += 4 + size;
    length -= 4 + size;
  }
  return TRUE;
}

/* The data behind the local header at @place, which has the name again. */
static gboolean
find_data(const Archive *archive, const char *name, guint64 place, guint64 size,
          OsrZipMember *member)
{
  const guint8 *local;
  gsize skip;

  if (archive->size < LOCAL_SIZE || place > archive->size - LOCAL_SIZE)
    return FALSE;
  local = archive->data + place;
  skip = LOCAL_SIZE + get16(local + 26) + get16(local + 28);
  if (get32(local) != LOCAL_SIGNATURE || skip > archive->size - place ||
      size > archive->size - place - skip || get16(local + 26) != strlen(name) ||
      memcmp(local + LOCAL_SIZE, name, strlen(name)) != 0)
    return FALSE;
  *member = (OsrZipMember){ local + skip, size };
  return TRUE;
}

/* Of the directory's header at @at. */
static gboolean
add_member(const Archive *archive, GHashTable *members, const guint8 *at, GError **error)
{
  const guint8 *extra = at + MEMBER_SIZE + get16(at + 28);
  g_autofree char *name = g_strndup((const char *) at + MEMBER_SIZE, get16(at + 28));
  guint64 stored = get32(at + 20), size = get32(at + 24), place = get32(at + 42);
  g_autofree char *shown = NULL;
  OsrZipMember member;

  if (strlen(name) != get16(at + 28) || !g_utf8_validate(name, -1, NULL))
    return fail(archive, error, "the name of a zip member is not text");
  shown = osr_printable(name);
  if (!read_extra(extra, get16(at + 30), (guint64 *const[3]){ &size, &stored, &place }) ||
      !find_data(archive, name, place, stored, &member))
    return fail(archive, error,
                "zip member '%s' is not where the directory says (is the file "
                "truncated?)",
                shown);
  if (get16(at + 8) & FLAG_ENCRYPTED || get16(at + 10) != METHOD_STORED)
    member.data = NULL;
  if (g_hash_table_contains(members, name))
    return fail(archive, error, "zip member '%s' is there twice", shown);
  g_hash_table_insert(members, g_steal_pointer(&name), g_memdup2(&member, sizeof member));
  return TRUE;
}

GHashTable *
osr_zip_list(const guint8 *data, gsize size, const char *name, GError **error)
{
  g_autoptr(GHashTable) members = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  const Archive archive = { data, size, name };
  Directory directory = { 0 };
  const guint8 *at, *end;

  if (!find_directory(&archive, &directory, error))
    return NULL;
  at = data + directory.place;
  end = at + directory.size;
  for (guint64 i = 0; i < directory.n_members; i++) {
    gsize length = 0;

    if (end - at >= MEMBER_SIZE)
      length = (gsize) MEMBER_SIZE + get16(at + 28) + get16(at + 30) + get16(at + 32);
    if (length == 0 || get32(at) != MEMBER_SIGNATURE || length > (gsize) (end - at)) {
      fail(&archive, error,
           "the zip directory ends after %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " members", i,
           directory.n_members);
      return NULL;
    }
    if (!add_member(&archive, members, at, error))
      return NULL;
    at += length;
  }
  return g_steal_pointer(&members);
}
