/* The EFI program of a prepared disk, \EFI\BOOT\BOOTX64.EFI and BOOTAA64.EFI: a UEFI machine that starts it asks the network without end.
 *
 * It starts the network loader that lies next to it on the EFI system partition, if its CRC-32 is right. That is iPXE, with a script
 * (`autoexec.ipxe` in the root of the partition, made of `disk.ipxe` of the package `loaders`) that asks on each network card, up to ROUNDS times.
 * iPXE from before 2021 looks for no script, and Debian 12's is one of them. So a keyboard of our own types the command that starts it.
 *
 * When iPXE returns, or cannot be started, this program names a network entry of the firmware as the next one to boot (BootNext), and
 * resets the machine: the firmware begins its boot order again, so that its own drivers, too, have their turn, and a card that hangs is
 * reset. iPXE is started once in a session of the firmware: in OVMF, a second one was seen to hang after its first lines.
 *
 * The number of rounds in vain is stored before a reset, as RackstrapTotal; the agent of the next boot reports and removes it. The rounds of the
 * session that boots are not in it: iPXE's script tells them to the server itself. So flash is written to once in a session.
 *
 * Built by `cargo xtask efi`. No section but the code's: no writable data, no relocations. UEFI 2.10 is the specification.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u16 wide;
typedef u64 status;

#ifdef __x86_64__
#define EFI __attribute__((ms_abi))
#define LOADER u"\\EFI\\rackstrap\\netx64.efi"
#define SUM u"\\EFI\\rackstrap\\netx64.crc"
#else
#define EFI
#define LOADER u"\\EFI\\rackstrap\\netaa64.efi"
#define SUM u"\\EFI\\rackstrap\\netaa64.crc"
#endif

/* The script's rounds in one session: four to five minutes with one card. */
#define ROUNDS 8
/* The pause before the reset in seconds, unless the script has waited between its rounds. So flash is not written to all the time. */
#define PAUSE 160
/* The firmware resets the machine after these seconds. iPXE sets this clock to five minutes again and again while it runs, and an operating
   system that starts ends it. */
#define STUCK 900
/* More bytes than any network loader has. */
#define MOST (16u << 20)
#define MOST_ENTRY 2048

/* Attributes of variables (8.2.1). */
#define STORED 7u

struct key;
struct system;

struct guid {
    u32 a;
    u16 b, c;
    u8 d[8];
};

/* Of each table only the fields in use have a name and a type. */
struct text_out {
    void *reset;
    EFI status (*print)(struct text_out *, const wide *);
};

struct text_in {
    EFI status (*reset)(struct text_in *, u8);
    EFI status (*read)(struct text_in *, struct key *);
    /* The event that is signalled while a key can be read. */
    void *wait;
};

struct key {
    u16 scan;
    wide character;
};

struct file {
    u64 revision;
    EFI status (*open)(struct file *, struct file **, const wide *, u64 mode, u64 attributes);
    EFI status (*close)(struct file *);
    void *remove;
    EFI status (*read)(struct file *, u64 *size, void *buffer);
};

struct file_system {
    u64 revision;
    EFI status (*open)(struct file_system *, struct file **);
};

struct loaded_image {
    u32 revision;
    void *parent;
    struct system *system;
    void *device;
};

struct boot {
    u8 header[24];
    void *before[5];
    EFI status (*allocate)(u32 type, u64 size, void **);
    EFI status (*release)(void *);
    EFI status (*create_event)(u32 type, u64 level, EFI void (*)(void *, void *), void *, void **event);
    void *timers[2];
    EFI status (*signal)(void *event);
    EFI status (*close_event)(void *event);
    void *more_events[4];
    EFI status (*protocol)(void *handle, const struct guid *, void *);
    void *handles[5];
    EFI status (*load)(u8 policy, void *parent, void *path, void *bytes, u64 size, void **image);
    EFI status (*start)(void *image, u64 *, wide **);
    void *exit;
    EFI status (*unload)(void *image);
    void *ends[2];
    EFI status (*stall)(u64 microseconds);
    EFI status (*watchdog)(u64 seconds, u64 code, u64 size, void *);
    void *more[10];
    EFI status (*crc32)(void *, u64 size, u32 *);
    EFI void (*copy)(void *to, const void *from, u64 size);
};

struct runtime {
    u8 header[24];
    void *time[6];
    EFI status (*get)(const wide *, const struct guid *, u32 *attributes, u64 *size, void *);
    void *next;
    EFI status (*set)(const wide *, const struct guid *, u32 attributes, u64 size, const void *);
    void *count;
    EFI void (*reset)(u32 type, status, u64 size, void *);
};

struct system {
    u64 signature;
    u32 revision, header_size, crc, reserved;
    void *vendor;
    u64 vendor_revision;
    void *in_handle;
    struct text_in *in;
    void *out_handle;
    struct text_out *out;
    void *err[2];
    struct runtime *runtime;
    struct boot *boot;
    u64 tables;
    void *table;
};

/* 7261636B-7374-4261-9070-726F756E6473 */
static const struct guid ours = {0x7261636B, 0x7374, 0x4261, {0x90, 0x70, 0x72, 0x6F, 0x75, 0x6E, 0x64, 0x73}};
static const struct guid global = {0x8BE4DF61, 0x93CA, 0x11D2, {0xAA, 0x0D, 0x00, 0xE0, 0x98, 0x03, 0x2B, 0x8C}};
static const struct guid is_loaded = {0x5B1B31A1, 0x9562, 0x11D2, {0x8E, 0x3F, 0x00, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
static const struct guid is_files = {0x964E5B22, 0x6459, 0x11D2, {0x8E, 0x39, 0x00, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
static const struct guid is_path = {0x09576E91, 0x6D3F, 0x11D2, {0x8E, 0x39, 0x00, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};

static void print(struct system *s, const wide *text)
{
    s->out->print(s->out, text);
}

static void print_number(struct system *s, u32 number)
{
    wide text[11];
    u32 at = 10;
    text[at] = 0;
    do {
        text[--at] = (wide)('0' + number % 10);
        number /= 10;
    } while (number);
    print(s, text + at);
}

/* A number that differs between machines that were switched on together. */
static u32 random(void)
{
#ifdef __x86_64__
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low >> 4;
#else
    u64 count;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
    return (u32)count;
#endif
}

static u32 stored(struct system *s)
{
    u32 count = 0;
    u64 size = sizeof count;
    /* A variable of another size is not ours. */
    if (s->runtime->get(u"RackstrapTotal", &ours, 0, &size, &count) || size != sizeof count)
        return 0;
    return count;
}

/* Reads a whole file of the partition into memory of its own; none if it is missing, unreadable, or too large. */
static void *read(struct boot *b, struct file *root, const wide *name, u64 most, u64 *size)
{
    struct file *file;
    void *bytes = 0;
    if (root->open(root, &file, name, 1, 0))
        return 0;
    *size = most;
    /* EfiLoaderData. */
    if (!b->allocate(2, most, &bytes) && (file->read(file, size, bytes) || *size == most)) {
        b->release(bytes);
        bytes = 0;
    }
    file->close(file);
    return bytes;
}

/* What is typed to iPXE: Control-B at its prompt opens its command line. `vain` is set by the script after its last round. */
static const u8 typed[] = "\2set spread 0 ; chain file:/autoexec.ipxe ; exit ${vain}\r";
/* Where `typed` has the number of seconds that this machine's pauses are longer. */
#define SPREAD 12

/* A keyboard that types `typed`, and the table by which iPXE finds it. */
struct typist {
    struct text_in in;
    struct system table, *firmware;
    u32 at;
    wide spread;
};

static EFI status type_key(struct text_in *in, struct key *key)
{
    struct typist *t = (struct typist *)in;
    key->scan = 0;
    key->character = t->at == SPREAD ? t->spread : typed[t->at];
    /* After the line iPXE has the real keyboard. */
    if (++t->at == sizeof typed - 1)
        t->table.in = t->firmware->in;
    return 0;
}

static EFI status forget_keys(struct text_in *in, u8 extended)
{
    (void)in, (void)extended;
    return 0;
}

static EFI void key_is_there(void *event, void *system)
{
    ((struct system *)system)->boot->signal(event);
}

/* Gives a program that is loaded the keyboard that types. Only this program has it: what iPXE starts has the firmware's table. */
static void type_to(struct system *s, struct typist *t, struct loaded_image *program)
{
    struct boot *b = s->boot;
    /* EVT_NOTIFY_WAIT, and TPL_NOTIFY, because iPXE looks for keys at TPL_CALLBACK. */
    if (b->create_event(0x100, 16, key_is_there, s, &t->in.wait))
        return;
    t->in.reset = forget_keys;
    t->in.read = type_key;
    t->firmware = s;
    t->at = 0;
    t->spread = (wide)('0' + random() % 8);
    b->copy(&t->table, s, sizeof t->table);
    /* iPXE looks there for another protocol of the real keyboard. */
    t->table.in_handle = 0;
    t->table.in = &t->in;
    t->table.header_size = sizeof t->table;
    t->table.crc = 0;
    b->crc32(&t->table, sizeof t->table, &t->table.crc);
    program->system = &t->table;
}

/* The rounds in vain of an iPXE that came back. It returns the negative of the script's exit code in the lowest seven bits. Anything else is one round
   without the script. */
static u32 rounds_of(status returned)
{
    u32 rounds = (u32)-returned & 127;
    return rounds && rounds <= ROUNDS ? rounds : 1;
}

/* Starts the network loader. Returns 0 if it ran and came back, with its rounds. */
static status ask(struct system *s, void *me, u32 *rounds)
{
    struct boot *b = s->boot;
    struct typist typist;
    struct loaded_image *image, *program;
    struct file_system *files;
    struct file *root;
    void *path, *loader, *bytes, *sum;
    u64 size, sum_size;
    u32 crc;
    status failed = 1;
    if (b->protocol(me, &is_loaded, &image) || b->protocol(image->device, &is_files, &files) || files->open(files, &root))
        return failed;
    /* Without a path the loader does not know from which device it comes, which is no reason not to start it. */
    if (b->protocol(image->device, &is_path, &path))
        path = 0;
    bytes = read(b, root, LOADER, MOST, &size);
    sum = read(b, root, SUM, 64, &sum_size);
    root->close(root);
    if (bytes && sum && sum_size == 4 && !b->crc32(bytes, size, &crc) && crc == *(u32 *)sum) {
        failed = b->load(0, me, path, bytes, size, &loader);
        if (!failed) {
            typist.in.wait = 0;
            if (!b->protocol(loader, &is_loaded, &program))
                type_to(s, &typist, program);
            *rounds = rounds_of(b->start(loader, 0, 0));
            if (typist.in.wait)
                b->close_event(typist.in.wait);
        } else if (loader && failed == (1ull << 63 | 26)) {
            /* EFI_SECURITY_VIOLATION: it is loaded, and may not be started. */
            b->unload(loader);
        }
    }
    if (bytes)
        b->release(bytes);
    if (sum)
        b->release(sum);
    return failed;
}

/* Whether a boot entry is active and boots from a network card by something else than IPv6: its path has a MAC node (10.3.4.11). */
static u32 is_network(const u8 *entry, u64 size)
{
    u64 at = 6, end;
    u32 mac = 0;
    if (size < 8 || !(entry[0] & 1))
        return 0;
    while (at + 2 <= size && (entry[at] || entry[at + 1]))
        at += 2;
    at += 2;
    end = at + (entry[4] | (u64)entry[5] << 8);
    if (end > size)
        end = size;
    while (at + 4 <= end) {
        u64 length = entry[at + 2] | (u64)entry[at + 3] << 8;
        if (length < 4)
            return 0;
        if (entry[at] == 3 && entry[at + 1] == 13)
            return 0;
        if (entry[at] == 3 && entry[at + 1] == 11)
            mac = 1;
        at += length;
    }
    return mac;
}

/* The next boot is from the network, if the firmware has an entry for it. */
static void network_next(struct system *s)
{
    u8 entry[MOST_ENTRY];
    u16 order[128];
    wide name[9];
    u64 size = sizeof order, at, length;
    u32 digit;
    if (s->runtime->get(u"BootOrder", &global, 0, &size, order))
        return;
    for (at = 0; at < size / 2; at++) {
        name[0] = 'B', name[1] = 'o', name[2] = 'o', name[3] = 't', name[8] = 0;
        for (digit = 0; digit < 4; digit++) {
            u32 value = order[at] >> (12 - 4 * digit) & 15;
            name[4 + digit] = (wide)(value < 10 ? '0' + value : 'A' + value - 10);
        }
        length = sizeof entry;
        if (!s->runtime->get(name, &global, 0, &length, entry) && is_network(entry, length)) {
            s->runtime->set(u"BootNext", &global, STORED, 2, &order[at]);
            return;
        }
    }
}

EFI status start(void *me, struct system *s)
{
    u32 total = stored(s), rounds = 1, left;
    s->boot->watchdog(STUCK, 0x10000, 0, 0);
    print(s, u"rackstrap: this disk asks the network.\r\n");
    if (ask(s, me, &rounds))
        print(s, u"rackstrap: the network loader on this disk cannot be started.\r\n");
    s->boot->watchdog(STUCK, 0x10000, 0, 0);
    total += rounds;
    if (rounds < ROUNDS) {
        left = PAUSE + random() % (PAUSE / 2);
        print(s, u"\r\nrackstrap: network boot failed, trying again in ");
        print_number(s, left);
        print(s, u" s\r\n");
        while (left--)
            s->boot->stall(1000000);
    }
    s->runtime->set(u"RackstrapTotal", &ours, STORED, sizeof total, &total);
    network_next(s);
    print(s, u"\r\nrackstrap: resetting the machine after ");
    print_number(s, total);
    print(s, total == 1 ? u" round in vain.\r\n" : u" rounds in vain.\r\n");
    s->runtime->reset(0, 0, 0, 0);
    /* Firmware that cannot reset gets its control back, and tries its next boot entry. */
    return 1ull << 63 | 7;
}
