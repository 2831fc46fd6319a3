import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { ConfigError, messageOf } from "../../protocols/errors.ts";

/**
 * Keeps a folder for one process alone.
 *
 * The lock is the operating system's own lock on a file, taken through SQLite because Node offers none itself: it ends
 * with the process however that dies, no pid has to be trusted, and it holds between containers that share the folder.
 */
export class FolderLock {
  readonly #file: DatabaseSync;

  private constructor(file: DatabaseSync) {
    this.#file = file;
  }

  /**
   * Takes the folder, making it where there is none.
   * @throws ConfigError when another process (or this one) has it, or it cannot be written
   */
  static take(folder: string): FolderLock {
    const holderFile = join(folder, "holder.txt");
    let file: DatabaseSync | undefined;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      file = new DatabaseSync(join(folder, "lock.sqlite"), { timeout: 0 });
      file.exec("BEGIN EXCLUSIVE");
      writeFileSync(holderFile, `process ${process.pid} on ${hostname()}, since ${new Date().toISOString()}`);
      return new FolderLock(file);
    } catch (error) {
      file?.close();
      if (!isBusy(error)) {
        throw new ConfigError(`The data folder ${folder} cannot be used: ${messageOf(error)}`, { cause: error });
      }
      throw new ConfigError(
        `The data folder ${folder} is in use by ${holder(holderFile)}. Stop that process, or choose another folder.`,
        { cause: error },
      );
    }
  }

  release(): void {
    this.#file.close();
  }
}

/** SQLITE_BUSY (5): somebody else has the file locked. */
function isBusy(error: unknown): boolean {
  return error instanceof Error && (error as { errcode?: unknown }).errcode === 5;
}

function holder(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "another process";
  }
}
